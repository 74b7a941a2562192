# make demo         set up and run on faces that edge-fer draws itself: no camera, no TensorFlow
# make test         all tests, those of training and export included (installs TensorFlow)
# make test-device  the runtime's tests alone: what one runs on a Pi
# make test-legacy  the same with the packages of 32-bit Raspberry Pi OS, in an environment of their own: Python 3.11
# make test-emulated   installs the release on the board's processor and system, emulated: root and mmdebstrap
# make image-test   boots an emulated board from a fresh card, breaks it in many ways and cuts its power
# make test-home-assistant  the real Home Assistant with a broker and a service: root and mmdebstrap
# make test-jax     the tests of training that want JAX
# make test-matrix  tests that train, with ten seeds and on a processor set up in many ways: docs/testing.md
# make test-engines `edge-fer archive` on local clusters of dask, ray and Spark
# make test-real    what is too heavy for each change: test-matrix, coverage, release-check, test-engines, test-home-assistant, web-load
# make web-load     the web page under load and bad clients: twelve minutes
# make check        ruff, ruff format, mypy --strict
# make coverage     all tests, and which branches they take
# make lock         the lock files anew: the newest versions that pyproject.toml allows
# make sbom         dist/sbom.json: what the runtime is made of
# make soak N=10000 endurance: frames in a row, streams that are cut, files that are damaged, edited and forged
# make board-cost   what a frame costs on a Cortex-A53, in instructions: an emulated board
# make release      dist/edge-fer-*-arm64.zip: what people download, one archive for each system; KEY=FILE signs them
# make image        dist/edge-fer-qemu-arm64*.img: systems with edge-fer installed, for QEMU
# make release-check   wheel and sdist, installed and run on Python 3.11 and on Debian trixie
# make model        train accurate and nano from scratch, which wants a GPU: make model DATA=~/fer2013
# make cached       the best that the teachers' cached logits give: two cores are enough
# make detector     train the face detector on photos with boxes and export it: make detector DATA=~/photos
# make quick        a first model from them, in less than two hours

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TOOLS  := $(VENV)-tools

.PHONY: demo test test-device test-legacy test-emulated test-home-assistant test-jax test-matrix test-engines test-real real-models soak check model cached quick teachers detector clean

demo: $(VENV)/runtime
	@$(BIN)/edge-fer run --camera demo --output terminal --output video:out/demo.mp4 --output jsonl:out/demo.jsonl
	@echo "Look at out/demo.mp4 and out/demo.jsonl. With a webcam: $(BIN)/edge-fer run --camera 0"

# Whole files in each of several processes: what a file's tests share is made once.
test: $(VENV)/train real-models
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-device: $(VENV)/dev real-models
	$(BIN)/python -m pytest tests/test_architecture.py tests/runtime tests/firmware

test-legacy: $(VENV)-legacy/ready real-models
	# The schema of graphs, which the first two tests forge some with, comes with ai-edge-litert alone. The old runtime reads beyond
	# a forged graph without looking: that it outlives in a child process does not say that it outlives in this one.
	$(VENV)-legacy/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/test_architecture.py tests/runtime \
		--deselect tests/runtime/test_bundle.py::test_a_graph_forged_to_kill_the_runtime \
		--deselect tests/runtime/test_bundle.py::test_operators_without_a_tensor_that_they_need_are_refused_before_they_are_prepared \
		--deselect tests/runtime/test_bundle.py::test_forged_graphs_with_right_hashes_are_refused_or_run
	$(VENV)-legacy/bin/edge-fer run --camera demo

test-emulated: $(VENV)/dev
	$(BIN)/python -m pytest -m emulated tests/firmware/test_emulated.py

test-home-assistant: $(VENV)/dev
	.ci/home-assistant $(CURDIR)/.home-assistant
	HOME_ASSISTANT_ROOT=$(CURDIR)/.home-assistant $(BIN)/python -m pytest -m home_assistant tests/runtime/test_home_assistant.py

test-jax: $(VENV)/jax
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/training/test_tasks.py tests/training/test_jax_fit.py \
		tests/training/test_distributed_jax.py \
		tests/training/test_detector_assignment.py tests/training/test_detector_images.py

test-matrix: $(VENV)/train
	$(BIN)/python tests/matrix.py

# Local clusters of what `edge-fer archive` can run on. Spark wants Java 17.
test-engines: $(VENV)-engines/ready
	PYTHONPATH=$(CURDIR) $(VENV)-engines/bin/python -m pytest -m engines tests/runtime/test_archive_engines.py

test-real: test-matrix coverage release-check test-engines test-home-assistant web-load

# FRAMES and CUTS are the other numbers; hours, as they stand.
N      ?= 10000
FRAMES ?= 1000000
CUTS   ?= 200
soak: $(VENV)/runtime
	$(BIN)/python benchmarks/soak.py --mutations $(N) --frames $(FRAMES) --cuts $(CUTS) --write

web-load: $(VENV)/dev
	$(BIN)/python benchmarks/web.py

# Face detectors of others. Without a network the tests that want them are skipped.
real-models: | $(BIN)/python
	@$(BIN)/python tests/real_models.py || echo "Tests that want these models are skipped."

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: coverage lock sbom release release-check board-cost image image-test

coverage: $(VENV)/train
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The largest set is resolved first and the others follow it: what is tested is what a device gets.
# On Raspberry Pi OS (Trixie) NumPy comes from apt, as picamera2 wants it.
compile = $(TOOLS)/bin/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
    --generate-hashes --custom-compile-command 'make lock'
lock: $(TOOLS)/made
	$(compile) --upgrade --extra dev --extra train -o requirements-train.lock
	$(compile) --upgrade --extra dev -c requirements-train.lock -o requirements-dev.lock
	$(compile) --upgrade --extra service -c requirements-train.lock -o requirements.lock
	$(compile) --upgrade --extra service -c requirements-train.lock --no-emit-package numpy -o requirements-pi.lock

sbom: $(TOOLS)/made
	.ci/sbom $(TOOLS)

# Without KEY a key is made here: good for trying, not for handing out.
KEY ?= dist/trial-key
release: $(TOOLS)/made
	@mkdir -p dist && rm -f dist/edge_fer-*.whl dist/edge-fer-*.zip
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(TOOLS)/bin/python -m build --wheel --outdir dist . >/dev/null
	@[ -e $(KEY) ] || [ $(KEY) != dist/trial-key ] || ssh-keygen -q -t ed25519 -N '' -C trial -f $(KEY)
	$(TOOLS)/bin/python firmware_configs/release.py --wheel dist/edge_fer-*.whl --key $(KEY)

# What boots in QEMU, and on no board; the second one never writes to its system. CUT is how often the power goes.
IMAGE := dist/edge-fer-qemu-arm64
CUT   ?= 10
image: release
	firmware_configs/image/build disk $(IMAGE).img dist/edge-fer-*-trixie-arm64.zip
	firmware_configs/image/build read-only $(IMAGE)-read-only.img dist/edge-fer-*-trixie-arm64.zip

image-test: image $(VENV)/dev
	$(BIN)/python tests/firmware/image_test.py dist/edge-fer-*-trixie-arm64.zip $(IMAGE).img $(IMAGE)-read-only.img --cuts $(CUT)

release-check: $(TOOLS)/made
	.ci/release-check $(TOOLS)

board-cost: $(VENV)/runtime
	$(BIN)/python benchmarks/board_cost.py

# Cut off, it goes on where it was. `make teachers` makes the cached logits anew.
model: $(VENV)/train
	for model in accurate nano; do \
	    $(BIN)/python -m training run $$model --data $(DATA) && \
	    cp runs/$$model/int8/$$model.tflite edge_fer/bundles/ || exit; done
	$(BIN)/python -m evaluation --data $(DATA) --model-card docs/model-card.md
	$(BIN)/python -m evaluation --data $(DATA) --model nano --model-card docs/model-card-nano.md

cached quick: $(VENV)/train
	$(BIN)/python -m training run $@ --data $(DATA)

# DATA: see datasets/boxes.py for the layouts. EPOCHS are of so many images as there are photos.
EPOCHS ?= 12
detector: $(VENV)/train real-models
	$(BIN)/python -m training.detector --data $(DATA) --epochs $(EPOCHS) --output runs/detector \
	    --from .models/face_detection_yunet_2023mar.onnx --batch 16 --learning-rate 1e-3 --share 0.5
	for size in 320x240 160x120; do \
	    $(BIN)/python export/detector.py runs/detector/face-$$size.keras --data $(DATA) \
	        --min-score 0.8 --min-score-weak 0.55 -o edge_fer/bundles/detectors/face-$$size.tflite || exit; done

teachers: $(VENV)/train
	$(BIN)/python -m training run teachers --data $(DATA)
	for logits in large-se t1-t4; do cp runs/teachers/$$logits/logits.npz training/logits/$$logits.npz || exit; done

# One marker file for each set of packages; they are installed again when pyproject.toml or the lock file changes.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edge-fer needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Raspberry Pi OS: sudo apt install python3-venv"; exit 1; }

# What the lock files are for. Elsewhere (32 bits, other systems) pip chooses the versions.
fits := import platform, sys; sys.exit(not (sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") \
    and sys.maxsize > 2**32 and platform.libc_ver()[0] == "glibc" and sys.version_info < (3, 15)))
comma := ,
define install
	@if $(BIN)/python -c '$(fits)'; then \
	    echo "Installing $(1)" && $(BIN)/python -m pip install --quiet --require-hashes -r $(1) && \
	    $(BIN)/python -m pip install --quiet --no-deps --editable .; \
	else \
	    echo "$(1) is for 64-bit Linux (glibc; x86-64, aarch64) and Python 3.11 to 3.14: here pip chooses the versions." && \
	    echo "32-bit Raspberry Pi OS: see requirements-legacy.txt." && \
	    $(BIN)/python -m pip install --quiet --editable '.$(2)'; \
	fi
endef

$(VENV)/runtime: pyproject.toml requirements.lock | $(BIN)/python
	$(call install,requirements.lock)
	@touch $@

$(VENV)/dev: pyproject.toml requirements-dev.lock | $(BIN)/python
	$(call install,requirements-dev.lock,[dev])
	@touch $@ $(VENV)/runtime

$(VENV)/train: pyproject.toml requirements-train.lock | $(BIN)/python
	$(call install,requirements-train.lock,[dev$(comma)train])
	@touch $@ $(VENV)/dev $(VENV)/runtime

# Tools of those who hand out a version stand apart: they must not move what is tested.
$(TOOLS)/made: Makefile
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet 'build==1.*' 'cyclonedx-bom==7.*' 'uv==0.13.*'
	@touch $@

$(VENV)/jax: | $(VENV)/train
	$(BIN)/python -m pip install --quiet jax
	@touch $@

$(VENV)-legacy/ready: requirements-legacy.txt pyproject.toml
	@command -v python3.11 >/dev/null || { echo "The legacy set needs Python 3.11: tflite-runtime has no later wheel."; exit 1; }
	python3.11 -m venv $(VENV)-legacy
	$(VENV)-legacy/bin/python -m pip install --quiet -r requirements-legacy.txt pytest pytest-xdist hypothesis pyyaml jsonschema \
		joblib "pyarrow<20" duckdb h11 prometheus-client paho-mqtt
	$(VENV)-legacy/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)-engines/ready: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-engines
	$(VENV)-engines/bin/python -m pip install --quiet -e '.[dev]' 'dask[distributed]' ray joblibspark pyspark
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-legacy $(VENV)-engines $(TOOLS) .models .image out build dist *.egg-info
