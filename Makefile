# make demo         sets up .venv and learns the digits, in about a minute
# make test         runs the tests in the same environment; make slow, its long ones
# make test-lowest  runs the tests with the lowest versions that pyproject.toml allows;
#                   make test-highest, with the highest
# make docs         builds the site, strictly: site/index.html
# make release      builds and tries what is released, of a tree that is tagged with its version
# make check        format, lint, types and tests: what a change must pass
# make torture      kills runs at random moments and has them go on: KILLS, SEED; half an hour
# make mutants      plants faults and prints those that no test sees: MODULES, SAMPLE, SEED
# make bench        measures us, the peers that are installed and the floor; bench-peers installs
# make bench-gpu    measures us on a GPU, in under ten minutes: benchmarks/results-gpu.json
# make constraints  pins again all that an install takes in
# make clean        removes .venv, the peers and the caches; results under runs/ stay
# PYTHON=python3.12 make demo sets .venv up with that Python.

PYTHON ?= python3
DEMO := -m experiments.wta_broadcast --dataset digits --out runs/demo --overwrite

python := .venv/bin/python
stamp := .venv/.installed

# uv, which resolves the lowest, fetches no Python of its own.
uv := UV_PYTHON_DOWNLOADS=never .envs/uv/bin/uv

.PHONY: demo test slow test-lowest test-highest docs release check torture mutants bench bench-peers
.PHONY: bench-gpu constraints clean
.NOTPARALLEL: # two targets at once would install into one .venv

demo: $(stamp)
	$(python) $(DEMO)

test: $(stamp)-test
	$(python) -m pytest -n 2 --dist loadfile

slow: $(stamp)-test
	$(python) -m pytest -n 2 --dist loadfile -m slow --ignore=tests/reliability

# Each in an environment of its own, resolved anew each time. The lowest have wheels for the
# oldest Python supported, the highest for all; jax 0.11 asks for Python 3.12, so that the
# highest of all need PYTHON=python3.12 or newer.
test-lowest: resolution := lowest-direct
test-highest: resolution := highest
test-lowest test-highest: test-%: .envs/uv/bin/uv
	@echo 'Installing the $* versions allowed into .envs/$*'
	@$(uv) venv --quiet --clear --python $(PYTHON) .envs/$*
	@$(uv) pip install --quiet --python .envs/$* --resolution $(resolution) -e '.[test]'
	.envs/$*/bin/python -m pytest $(or $(PYTEST),-n 2 --dist loadfile)

.envs/uv/bin/uv:
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .envs/uv uv

# Tags first: git tag v0.2.0. The whole takes hours of two cores; PYTEST="-q tests/neurons" is
# what pytest is given in place of the quick tests.
release: $(stamp)-test .envs/uv/bin/uv
	@$(python) tests/release.py $(PYTEST)
	@$(MAKE) --no-print-directory test-lowest test-highest

docs: $(stamp)-docs
	@$(python) docs/site/make_site.py

check: $(stamp)-dev
	$(python) -m ruff format --check
	$(python) -m ruff check
	$(python) -m pyright
	$(python) -m pytest -n 2 --dist loadfile

KILLS ?= 50
SEED ?= 0
torture: $(stamp)-test
	KILLS=$(KILLS) SEED=$(SEED) $(python) -m pytest -m slow tests/reliability

# Minutes to hours, as SAMPLE faults of each module have their tests run: tests/mutants.py.
MODULES ?= neurojax/learning neurojax/plasticity hardware experiments/_training.py
mutants: $(stamp)-test
	$(python) tests/mutants.py $(MODULES) $(if $(SAMPLE),--sample $(SAMPLE)) --seed $(SEED)

bench: $(stamp)
	$(python) -m benchmarks --json runs/benchmarks.json

# JAX for the accelerator must be installed into .venv beside this package.
bench-gpu: $(stamp)
	$(python) -m benchmarks.gpu

# Each in an environment of its own; one that can't be had is a line in the table. aihwkit
# needs Python 3.12 or newer: PEER_PYTHON.
peers := jax torch brian2 aihwkit events
bench-peers:
	@$(MAKE) --no-print-directory -k $(peers:%=benchmarks/.peers/%/.installed) || \
		echo 'Some peers are missing: the table will say which'

PEER_PYTHON ?= python3.12
benchmarks/.peers/aihwkit/.installed: PYTHON := $(PEER_PYTHON)
benchmarks/.peers/torch/.installed: benchmarks/peers/torch-alone.txt
benchmarks/.peers/%/.installed: benchmarks/peers/%.txt
	@echo 'Installing $* into benchmarks/.peers'
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/$*.txt
	@alone=benchmarks/peers/$*-alone.txt; test ! -f $$alone || \
		$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $$alone
	@touch $@

# The install is editable, so only what it depends on makes it stale. A .venv that an
# interruption left half-made is made afresh; one that was made by hand is used as it is.
$(stamp): extras :=
$(stamp)-test: extras := [test]
$(stamp)-docs: extras := [docs]
$(stamp)-dev: extras := [dev]
$(stamp) $(stamp)-test $(stamp)-docs $(stamp)-dev: pyproject.toml constraints.txt $(python)
	@$(usable) || { $(new_enough) && $(make_venv) && touch .venv/.unfinished; }
	@echo 'Installing neurojax$(extras) into .venv; the first time takes minutes'
	@$(python) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(extras)'
	@rm -f .venv/.unfinished
	@touch $(stamp) $@

# If it is missing, or a link to a Python that is gone, the stamps are stale.
$(python): ;

usable = test ! -e .venv/.unfinished && \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	$(python) -m pip --version >/dev/null 2>&1

need := neurojax needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try: PYTHON=python3.12 make
new_enough = $(PYTHON) -c \
	'import sys; v = sys.version_info[:2]; sys.exit("$(need)" % v if v < (3, 11) else 0)'

# Debian's Python makes no pip of its own: there, that of $(PYTHON) fetches one.
make_venv = { $(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || \
	{ $(PYTHON) -m venv --clear --without-pip .venv && \
	$(PYTHON) -m pip --python $(python) install --quiet --disable-pip-version-check pip; }; }

# Run it with the oldest Python supported: the newer ones can install its pins too.
constraints:
	$(PYTHON) -m venv --clear .constraints
	.constraints/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	.constraints/bin/python -m pip freeze --exclude neurojax > .constraints/pins
	mv .constraints/pins constraints.txt
	rm -rf .constraints

clean:
	rm -rf .venv .envs .constraints .site site .hypothesis .pytest_cache .ruff_cache dist benchmarks/.peers
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
