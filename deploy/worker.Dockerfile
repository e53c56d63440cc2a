# The worker on a CPU. With --build-arg OPENVINO=1 it can serve by OpenVINO too (FIRSTREAD_ENGINE=openvino).
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin firstread \
    && install -d -o firstread -g firstread /var/lib/firstread /inbox

WORKDIR /src
COPY requirements/cpu.txt requirements/cpu.txt
RUN pip install --no-cache-dir --compile --no-deps --require-hashes -r requirements/cpu.txt

ARG OPENVINO=""
COPY requirements/openvino.txt requirements/openvino.txt
RUN [ -z "$OPENVINO" ] || pip install --no-cache-dir --compile --no-deps --require-hashes -r requirements/openvino.txt

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY firstread firstread
COPY firstread_cli firstread_cli
COPY firstread_web firstread_web
COPY dicom_listener dicom_listener
COPY worker worker
COPY training training
COPY demo demo
COPY migrations migrations
COPY models models
RUN pip install --no-cache-dir --compile --no-deps --no-index --no-build-isolation .

COPY deploy/healthcheck.py /opt/firstread/healthcheck.py
WORKDIR /var/lib/firstread
USER firstread
ENV FIRSTREAD_HOME=/var/lib/firstread PYTHONUNBUFFERED=1
VOLUME /var/lib/firstread
EXPOSE 9109
CMD ["firstread", "work"]
