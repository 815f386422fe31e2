# make demo         sets up .venv and learns the digits, in about a minute
# make test         runs the tests in the same environment; make slow, its long ones
# make check        format, lint, types and tests: what a change must pass
# make constraints  pins again all that an install takes in
# make clean        removes .venv and the caches; results under runs/ stay
# PYTHON=python3.12 make demo sets .venv up with that Python.

PYTHON ?= python3
DEMO ?= -m experiments.wta_broadcast --dataset digits --out runs/demo --overwrite

python := .venv/bin/python
stamp := .venv/.installed

.PHONY: demo test slow check constraints clean
.NOTPARALLEL: # two targets at once would install into one .venv

demo: $(stamp)
	$(python) $(DEMO)

test: $(stamp)-test
	$(python) -m pytest -n 2

slow: $(stamp)-test
	$(python) -m pytest -n 2 -m slow

check: $(stamp)-dev
	$(python) -m ruff format --check
	$(python) -m ruff check
	$(python) -m pyright
	$(python) -m pytest -n 2

# The install is editable, so only what it depends on makes it stale. A .venv left half-made
# by an interruption is made afresh; one that was made by hand is used as it is.
$(stamp): extras :=
$(stamp)-test: extras := [test]
$(stamp)-dev: extras := [dev]
$(stamp) $(stamp)-test $(stamp)-dev: pyproject.toml constraints.txt $(python)
	@$(python) -m pip --version >/dev/null 2>&1 || { $(make_venv); }
	@echo 'Installing neurojax$(extras) into .venv; the first time takes minutes'
	@$(python) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(extras)'
	@touch $(stamp) $@

$(python):
	@$(make_venv)

# Debian ships venv without pip: there, the pip of $(PYTHON) fetches one.
too_old := neurojax needs Python 3.11 or newer, and $(PYTHON) is %d.%d: name one, PYTHON=python3.12 make
define make_venv
$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit("$(too_old)" % v if v < (3, 11) else 0)' && \
{ $(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip .venv && \
$(PYTHON) -m pip --python $(python) install --quiet --disable-pip-version-check pip; }; }
endef

# Run it with the oldest Python supported: the newer ones can install its pins too.
constraints:
	$(PYTHON) -m venv --clear .constraints
	.constraints/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	.constraints/bin/python -m pip freeze --exclude neurojax > .constraints/pins
	mv .constraints/pins constraints.txt
	rm -rf .constraints

clean:
	rm -rf .venv .constraints .hypothesis .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
