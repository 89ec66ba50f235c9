# What is run by hand; the tests are `pytest`.
PYTHON ?= python

.PHONY: verify-docs fuzz audit sbom

verify-docs: ## figures in README and docs against the records in docs/measured
	$(PYTHON) benchmarks/verify_docs.py

fuzz: ## damaged files for every reader, docs/reliability.md
	$(PYTHON) benchmarks/fuzz.py --inputs 13000 --seed 1

audit: ## known vulnerabilities of the pinned versions (pip install pip-audit; asks PyPI's service)
	pip-audit --requirement constraints.txt --disable-pip --no-deps

# `cyclonedx-bom` in an environment of its own, or it lists itself: PATH=/that/bin:$PATH make sbom PYTHON=/this/bin/python
sbom: ## what is installed beside PYTHON, as CycloneDX
	cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-format JSON --output-file sbom.json "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
