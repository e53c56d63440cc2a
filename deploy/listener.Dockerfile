# The listener: C-STORE, inbox, assembler and migrations; deliveries and the worklist page. No TensorFlow.
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin firstread \
    && install -d -o firstread -g firstread /var/lib/firstread /inbox

WORKDIR /src
COPY requirements/listener.txt requirements/listener.txt
RUN pip install --no-cache-dir --compile --no-deps --require-hashes -r requirements/listener.txt

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY firstread firstread
COPY firstread_cli firstread_cli
COPY firstread_web firstread_web
COPY dicom_listener dicom_listener
COPY worker worker
COPY training training
COPY migrations migrations
COPY models models
RUN pip install --no-cache-dir --compile --no-deps --no-index --no-build-isolation .

COPY deploy/healthcheck.py /opt/firstread/healthcheck.py
WORKDIR /var/lib/firstread
USER firstread
ENV FIRSTREAD_HOME=/var/lib/firstread PYTHONUNBUFFERED=1
VOLUME /var/lib/firstread
EXPOSE 11112 2762 8112 9108
CMD ["firstread", "listen"]
