"""Thin adapters, one file per host trainer or library; each imports its host lazily."""

if __name__ != "gtsvj_reward.integrations":
    raise ImportError(
        f"this folder is the package `gtsvj_reward.integrations`, not `{__name__}`: "
        "run `pip install -e .` and import `gtsvj_reward.integrations.<host>`"
    )
