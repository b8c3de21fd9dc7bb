# make app: the app on http://127.0.0.1:7860     make test: all tests
PYTHON ?= python3
BIN := .venv/bin

.PHONY: app test lint clean

app: .venv/app.stamp
	$(BIN)/python app.py

test: .venv/dev.stamp
	CHROMIUM="$$($(BIN)/python tests/browser/chromium.py)" && export CHROMIUM && $(BIN)/python -m pytest

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/app.stamp: requirements.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "TokenLab needs Python 3.11 or newer"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/app.stamp
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv
