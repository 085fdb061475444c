# One entry point for people and CI. Every target sets up what it needs; nothing is installed outside .venv*.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GALAXY_VERSION ?= 26.1.2
OLDER_GALAXIES ?= 26.0.2 25.1.3
PYTEST_FLAGS ?= -n 2 --dist loadgroup

.PHONY: demo test nightly test-cluster test-galaxy $(OLDER_GALAXIES:%=test-galaxy-%) test-galaxy-pins check image bench bench-galaxy bench-cluster clean

demo: $(VENV)/.demo  ## Run the main job on an embedded S3 server: no root, no other network
	$(BIN)/s3runner demo

test: $(VENV)/.test  ## Pass the tests; the last lines say which real services were missing
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

nightly: $(VENV)/.test  ## The tests that take minutes, and properties with many more examples
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m nightly
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest $(PYTEST_FLAGS) $$(grep -rl 'from hypothesis' tests --include='test_*.py')
	$(MAKE) $(OLDER_GALAXIES:%=test-galaxy-%)

# Without a default; CONTRIBUTING.md says what each is
CLUSTER_NEEDS := S3RUNNER_TEST_KUBECONFIG S3RUNNER_TEST_WORKER_IMAGE S3RUNNER_TEST_TOOL_IMAGE S3RUNNER_TEST_S3_ENDPOINT S3RUNNER_TEST_S3_POD_ENDPOINT S3RUNNER_TEST_BUCKET AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY

define need-cluster
@missing=; for name in $(CLUSTER_NEEDS); do [ -n "$$(printenv $$name)" ] || missing="$$missing $$name"; done; \
[ -z "$$missing" ] || { echo "make $@: not set:$$missing" >&2; exit 2; }
endef

test-cluster:  ## The cluster suite on the Kubernetes cluster that S3RUNNER_TEST_KUBECONFIG names
	$(need-cluster)
	@$(MAKE) $(VENV)/.test
	$(BIN)/python -m pytest tests/contract/test_cluster.py -k real

# Each process has a server of its own, so whole files go to one. anyio's plugin, which Galaxy brings, warns under
# a newer pytest, and warnings are errors here.
GALAXY_FLAGS ?= -n 2 --dist loadfile -p no:anyio

test-galaxy: .venv-galaxy/.test  ## A real Galaxy server whose jobs run in pods that see none of its files
	.venv-galaxy/bin/python -m pytest $(GALAXY_FLAGS) tests/e2e

$(OLDER_GALAXIES:%=test-galaxy-%): test-galaxy-%: .venv-galaxy-%/.test  ## The same tools on an older Galaxy
	.venv-galaxy-$*/bin/python -m pytest $(GALAXY_FLAGS) tests/e2e/test_galaxy_tools.py

test-galaxy-pins: .venv-galaxy-pins/.test  ## Unit and contract tests under the versions that Galaxy pins
	.venv-galaxy-pins/bin/python -m pytest $(PYTEST_FLAGS) tests/unit tests/contract

check: $(VENV)/.dev  ## Static checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck job_scripts/tool_shim.sh tests/services/ceph_rgw .ci/run docker/build_image docker/collect_wheels

image: $(VENV)/bin/uv  ## Build the worker image into dist/s3runner-worker.tar; as root, with buildah (docker/build_image)
	PYTHON=$(BIN)/python docker/build_image

bench: $(VENV)/.test  ## Reproducible measurements, each against a peer in the same run
	$(BIN)/uv pip install --quiet --python $(BIN)/python awscli
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench/overhead.py
	$(BIN)/python bench/memory.py

# pykube-ng is what Galaxy's own runner needs: it goes to a directory of its own, and moves nothing of Galaxy's
bench-galaxy: .venv-galaxy/.test  ## What s3runner costs inside Galaxy, against Galaxy's own Kubernetes runner
	$(BIN)/uv pip install --quiet --no-deps --target .venv-galaxy/pykube pykube-ng==23.6.0
	PYTHONPATH=tests .venv-galaxy/bin/python -W ignore bench/galaxy_overhead.py --pykube .venv-galaxy/pykube

bench-cluster:  ## What a job costs on that cluster, against a bare Job
	$(need-cluster)
	@$(MAKE) $(VENV)/.test
	$(BIN)/python bench/kube_overhead.py

clean:
	rm -rf .venv .venv-galaxy .venv-galaxy-* demo-result docker/wheels

# The interpreter comes from the system, everything else from the package index through uv (quick, cached).
$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "s3runner needs Python 3.10 or newer: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv

$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$*]'
	@touch $@

# Galaxy's packages do not say which versions of each other they need.
GALAXY_PACKAGES := auth config data files job-execution job-metrics navigation objectstore schema tool-shed-schema tool-util tool-util-models tours util web-apps web-framework web-stack

# Galaxy ships its pins inside its own package; its certifi pin is left out because CAs must be fresh.
define venv-with-pins-of
$(PYTHON) -m venv $(@D)
$(BIN)/python -m pip download --quiet --no-deps --dest $(@D)/wheel galaxy-app==$(1)
$(BIN)/python -m zipfile -e $(@D)/wheel/*.whl $(@D)/galaxy
grep -E '^[A-Za-z0-9]' $(@D)/galaxy/galaxy/dependencies/pinned-requirements.txt | grep -v '^certifi==' >$(@D)/pins.txt
printf 'galaxy-%s==$(1)\n' $(GALAXY_PACKAGES) >>$(@D)/pins.txt
endef

# Ours comes second, under the same pins, and must leave every version of Galaxy's as it was.
define install-galaxy-and-ours
$(BIN)/uv pip install --quiet --python $(@D)/bin/python --constraint $(2) galaxy-app==$(1) galaxy-web-apps==$(1)
$(BIN)/uv pip freeze --python $(@D)/bin/python | sort >$(@D)/before.txt
$(BIN)/uv pip install --quiet --python $(@D)/bin/python --constraint $(2) --editable '.[galaxy]'
$(BIN)/uv pip freeze --python $(@D)/bin/python | sort | comm -13 - $(@D)/before.txt | { ! grep .; }
$(BIN)/uv pip install --quiet --python $(@D)/bin/python --constraint $(2) --editable '.[test]' 'total-perspective-vortex>=3.2.1,<4'
endef

.venv-galaxy-pins/.test: pyproject.toml | $(VENV)/bin/uv
	$(call venv-with-pins-of,$(GALAXY_VERSION))
	$(BIN)/uv pip install --quiet --python .venv-galaxy-pins/bin/python --constraint .venv-galaxy-pins/pins.txt --editable '.[test]'
	@touch $@

.venv-galaxy/.test: pyproject.toml .venv-galaxy-pins/.test
	$(PYTHON) -m venv .venv-galaxy
	$(call install-galaxy-and-ours,$(GALAXY_VERSION),.venv-galaxy-pins/pins.txt)
	@touch $@

$(OLDER_GALAXIES:%=.venv-galaxy-%/.test): .venv-galaxy-%/.test: pyproject.toml | $(VENV)/bin/uv
	$(call venv-with-pins-of,$*)
	$(call install-galaxy-and-ours,$*,$(@D)/pins.txt)
	@touch $@
