# make demo         set up and run on faces that edge-fer draws itself: no camera, no TensorFlow
# make test         all tests, those of training and export included (installs TensorFlow)
# make test-device  the runtime's tests alone: what one runs on a Pi
# make test-matrix  tests that train, with ten seeds and on a processor set up in many ways: docs/testing.md
# make check        ruff, ruff format, mypy --strict
# make model        train the models in the wheel again, which wants a GPU: make model DATA=~/fer2013
# make cached       the best that the kept answers of the teachers give: two cores are enough

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-device test-matrix check model cached teachers clean

demo: $(VENV)/runtime
	@$(BIN)/edge-fer run --camera demo --output terminal --output video:out/demo.mp4 --output jsonl:out/demo.jsonl
	@echo "Look at out/demo.mp4 and out/demo.jsonl. With a webcam: $(BIN)/edge-fer run --camera 0"

test: $(VENV)/train
	$(BIN)/python -m pytest

test-device: $(VENV)/dev
	$(BIN)/python -m pytest tests/test_architecture.py tests/runtime tests/firmware

test-matrix: $(VENV)/train
	$(BIN)/python tests/matrix.py

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Cut off, it goes on where it was. `make teachers` makes the kept answers anew.
model: runs/accurate-shipped/model.keras runs/nano-shipped/model.keras
	for model in accurate nano; do \
	    $(BIN)/python export/quantize.py runs/$$model-shipped/model.keras --data $(DATA) \
	        --correct-bias -o edge_fer/bundles/$$model.tflite --force || exit; done
	$(BIN)/python -m evaluation --data $(DATA) --model-card docs/model-card.md
	$(BIN)/python -m evaluation --data $(DATA) --model nano --model-card docs/model-card-nano.md

cached: runs/accurate-second/model.keras runs/nano-second/model.keras

teachers: $(patsubst %,runs/%/model.keras,large gated t1 t2 t3 t4)
	$(BIN)/python -m training teach $(patsubst %,--teacher runs/%,large gated) --views 2 --data $(DATA) \
	    -o training/answers/large-gated.npz
	$(BIN)/python -m training teach $(patsubst %,--teacher runs/%,t1 t2 t3 t4) --views 4 --data $(DATA) \
	    -o training/answers/committee.npz

# A processor without bfloat16 would only imitate it, slowly.
float32 := $(shell grep -qs avx512_bf16 /proc/cpuinfo || [ "$$KERAS_BACKEND" = jax ] || echo --set precision=float32)
train = $(BIN)/python -m training train --recipe training/recipes/$(1).toml --data $(DATA) \
    $(if $(wildcard runs/$(1)/checkpoint.keras),--resume)

runs/accurate-shipped/model.keras runs/nano-shipped/model.keras: runs/%-shipped/model.keras: runs/%-asked/model.keras runs/%/model.keras
	$(BIN)/python -m training average --of runs/$*-asked --and runs/$* --share 0.7 --data $(DATA) --run runs/$*-shipped

runs/accurate/model.keras runs/nano/model.keras: runs/%/model.keras: runs/%-asked/model.keras runs/accurate-asked/model.keras
	$(call train,$*) $(float32) --teacher runs/accurate-asked --begin-with $<

runs/nano-asked/model.keras: runs/nano-second/model.keras
runs/nano-asked/model.keras: from = --begin-with runs/nano-second/model.keras
runs/accurate-asked/model.keras runs/nano-asked/model.keras: runs/%-asked/model.keras: $(patsubst %,runs/%/model.keras,t1 t2 t3 t4)
	$(call train,$*-asked) $(float32) $(patsubst %,--teacher runs/%,t1 t2 t3 t4) $(from)

runs/accurate-second/model.keras runs/nano-second/model.keras: runs/%-second/model.keras: runs/%-first/model.keras
	$(call train,$*-second) $(float32) --cache training/answers/committee.npz --begin-with $<

runs/accurate-first/model.keras runs/nano-first/model.keras: runs/%-first/model.keras: | $(VENV)/train
	$(call train,$*-first) $(float32) --cache training/answers/large-gated.npz

runs/%/model.keras: | $(VENV)/train
	$(call train,$*) $(float32)

# One marker file for each set of packages; they are installed again when pyproject.toml changes.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edge-fer needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Raspberry Pi OS: sudo apt install python3-venv"; exit 1; }

$(VENV)/runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/runtime

$(VENV)/train: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev,train]'
	touch $@ $(VENV)/dev $(VENV)/runtime

clean:
	rm -rf $(VENV) out build *.egg-info
