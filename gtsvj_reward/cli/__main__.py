"""`python -m gtsvj_reward.cli`, for launchers that start modules."""

import sys

from gtsvj_reward.cli import main

sys.exit(main())
