"""Recompute the error of a benchmark from its dump, with numpy alone: nothing of mpc-ray, nothing of torch.

    mpc-ray bench encoder --shape minilm --seq 128 --dump pass.npz --json
    python benchmarks/recompute.py pass.npz

Prints one JSON object with mean_abs_error and max_abs_error, which must be those that the benchmark printed.
"""

import argparse
import json
import math
import sys

import numpy as np

erf = np.frompyfunc(math.erf, 1, 1)

ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2)).astype(np.float64)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def layer_norm(x, gain, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * gain + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def encoder(x, layers, heads, eps, activation):
    """Post-norm encoder on x (batch, n, hidden), float64."""
    batch, n, hidden = x.shape

    def split(y):
        return y.reshape(batch, n, heads, hidden // heads).transpose(0, 2, 1, 3)

    for w in layers:
        q, k, v = (split(x @ w[f"{name}_weight"] + w[f"{name}_bias"]) for name in "qkv")
        attention = softmax(q @ k.swapaxes(-1, -2) / math.sqrt(hidden // heads)) @ v
        joined = attention.transpose(0, 2, 1, 3).reshape(batch, n, hidden)
        x = x + joined @ w["o_weight"] + w["o_bias"]
        x = layer_norm(x, w["attention_norm_gain"], w["attention_norm_bias"], eps)
        inner = ACTIVATIONS[activation](x @ w["ffn1_weight"] + w["ffn1_bias"])
        x = x + inner @ w["ffn2_weight"] + w["ffn2_bias"]
        x = layer_norm(x, w["ffn_norm_gain"], w["ffn_norm_bias"], eps)
    return x


def recompute(path):
    """(mean, max) of |output - exact| over the last hidden state."""
    with np.load(path) as file:
        config = json.loads(str(file["config"]))
        arrays = {name: file[name].astype(np.float64) for name in file.files if name != "config"}
    layers = [
        {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"layer {i}/")}
        for i in range(config["layers"])
    ]
    x = arrays["input"]
    if "norm gain" in arrays:
        x = layer_norm(x, arrays["norm gain"], arrays["norm bias"], config["eps"])
    exact = encoder(x, layers, config["heads"], config["eps"], config["activation"])
    error = np.abs(arrays["output"] - exact)
    return float(error.mean()), float(error.max())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dump", help="what `mpc-ray bench encoder --dump` wrote")
    try:
        mean, largest = recompute(parser.parse_args().dump)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"recompute: not a dump of mpc-ray bench encoder: {error}")
    print(json.dumps({"mean_abs_error": mean, "max_abs_error": largest}))


if __name__ == "__main__":
    main()
