# What is run by hand; the tests are `pytest`.
PYTHON ?= python

.PHONY: verify-docs fuzz audit sbom

verify-docs: ## figures in README and docs against the records in docs/measured
	$(PYTHON) benchmarks/verify_docs.py

fuzz: ## damaged files for every reader, docs/security.md
	$(PYTHON) benchmarks/fuzz.py --inputs 10000 --seed 1

audit: ## known vulnerabilities of the pinned versions (pip install pip-audit)
	pip-audit --requirement constraints.txt --disable-pip --no-deps

sbom: ## what is installed, as CycloneDX (pip install cyclonedx-bom)
	cyclonedx-py environment --output-format JSON --output-file sbom.json $$($(PYTHON) -c 'import sys; print(sys.executable)')
