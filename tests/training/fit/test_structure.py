"""What is written of a network: its table of layers, its picture by blocks, and a file that Netron opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import netron
import pytest

from tests.builders.browser import LIMIT_S, headless
from tests.builders.timing import until
from training.fit.structure import blocks_of, layer_table, parts, save_structure
from training.recipe import load_recipe
from worker.packages.networks import build

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
SAME_DAY = """
const Plain = Date, released = () => document.querySelector("meta[name=date]");
Date = class extends Plain {
  constructor(...given) { if (given.length || !released()) super(...given); else super(released().content); }
};
"""
"""Netron wants to be brought up to date half a year after its release, and shows nothing until it is."""


@pytest.fixture(scope="module")
def network() -> Any:
    """The network of the published U-Net recipe, with few filters."""
    recipe = load_recipe("lesion_unet")
    spec = recipe.input.model_copy(update={"height": 48, "width": 64})
    return build.build({**recipe.architecture, "filters": [4, 8, 8]}, spec)


@pytest.fixture(scope="module")
def written(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what was written of it."""
    out = tmp_path_factory.mktemp("structure")
    save_structure(network, out)
    return out


def test_the_picture_shows_every_block_with_shape_and_weights(network: Any, written: Path) -> None:
    nodes, edges = parts(network)
    assert len(edges) >= len(nodes) - 1 and sum(weights for _, weights in nodes.values()) == network.count_params()
    svg = (written / "structure.svg").read_text(encoding="utf-8")
    assert len(re.findall(r"<!--.*?-->", svg)) >= len(nodes)
    for name, (shape, weights) in nodes.items():
        assert f"<!-- {name}" in svg and (not weights or f"{weights:,}" in svg) and shape in svg
    text = (written / "structure.txt").read_text(encoding="utf-8")
    assert f"parameters: {network.count_params():,}" in text
    assert {line.split()[0] for line in text.split("\n\n")[0].splitlines()[1:]} == {
        layer.name for layer in network.layers
    }


@pytest.mark.timeout(300)
def test_netron_opens_the_file(network: Any, written: Path) -> None:
    address = netron.serve(str(written / "model.keras"), address=("127.0.0.1", 0))
    try:
        with headless(OFFLINE) as browser:
            page = f"http://{address[0]}:{address[1]}/"
            browser.get(page + "favicon.ico")
            browser.add_cookie({"name": "consent", "value": "asked"})
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SAME_DAY})
            browser.get(page)

            def shown() -> list[str]:
                texts = "return [...document.querySelectorAll('.node')].map((node) => node.textContent)"
                return [text for text in browser.execute_script(texts) if text]

            until(lambda: len(shown()) > 5, LIMIT_S, what="the network")
            said = "\n".join(shown())
            missing = [layer.name for layer in network.layers if layer.weights and layer.name not in said]
            assert missing == [] and "Conv2D" in said
    finally:
        netron.stop(address)


def test_layers_with_numbers_belong_to_the_block_that_they_lead_to() -> None:
    names = ["image", "conv2d_1", "batch_normalization_1", "mixed_5b", "conv2d_7", "block35_1_mixed", "block35_1_conv"]
    blocks = blocks_of([*names, "conv4_block3_2_bn", "conv4_block3_out", "blocks_7_conv", "top_conv", "conv2d_9"])
    assert blocks["conv2d_1"] == blocks["batch_normalization_1"] == "mixed_5b"
    assert blocks["conv2d_7"] == blocks["block35_1_conv"] == "block35_1"
    assert blocks["conv4_block3_2_bn"] == blocks["conv4_block3_out"] == "conv4_block3"
    assert blocks["blocks_7_conv"] == "blocks_7" and blocks["top_conv"] == "top"
    assert blocks["conv2d_9"] == "convolutions"


def test_the_table_has_whole_columns_and_counts_no_optimizer() -> None:
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    long_name = "a_layer_whose_name_is_longer_than_any_column_of_a_table_that_is_cut_to_the_width_of_a_terminal"
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 3, name=long_name)(image))
    model = keras.Model(image, x)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    text = layer_table(model)
    assert f"{long_name}  Conv2D" in text and f"6 x 6 x 2  8           {long_name}" in text
    assert text.endswith("parameters: 28\ntrained: 24\nnot trained: 4\n")
