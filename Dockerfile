# Training and export in a container.
#
#     docker build -t nmt_keras .                                    # CPU
#     docker build -t nmt_keras:gpu --build-arg EXTRA=and-cuda .     # NVIDIA GPUs: run with --gpus=all
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" nmt_keras nmt-start --data=pairs.tsv --source=en --target=de --run_dir=runs/mine
#
# The server of what is exported is tensorflow/serving, an image of its own: docs/serving.md.
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
# What was tested, checked by its hashes; pip takes no file of constraints with hashes beside a package that has none.
RUN pip wheel --quiet --no-deps --require-hashes --requirement=requirements.lock --wheel-dir=/wheels \
    && pip wheel --quiet --no-deps --wheel-dir=/wheels/own . \
    && sed -e 's/ \\$//' -e '/--hash=/d' requirements.lock > /wheels/constraints.txt

FROM python:3.11-slim
ARG EXTRA=
# An extra's packages are in no lock file: they come from the index.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    wheel=$(echo /wheels/own/*.whl) index=$([ -n "$EXTRA" ] || echo --no-index) \
    && pip install --quiet --no-cache-dir $index --find-links=/wheels --constraint=/wheels/constraints.txt "${wheel}${EXTRA:+[$EXTRA]}" \
    && useradd --create-home user
USER user
ENV XDG_CACHE_HOME=/tmp/cache
WORKDIR /work
CMD ["nmt-train", "--help"]
