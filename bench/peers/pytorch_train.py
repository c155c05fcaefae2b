#!/usr/bin/env python3
"""Trains the benchmark's three models with PyTorch on the CPU and times the steps; the other side of `versus`.

  python3 pytorch_train.py lstm --threads 1 --steps 10 --json
  python3 pytorch_train.py lstm --threads 1 --serve        reads lines "run K", answers each with one line of JSON

The variants are different ways to write the same mathematics; the first one listed is the fastest measured and the default
(figures in README.md).
"""
import argparse
import atexit
import inspect
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def limit_threads_early():
    """Thread pools read these variables when torch is loaded, so they are set before the import."""
    for position, word in enumerate(sys.argv):
        if word.startswith("--threads"):
            count = word.partition("=")[2] or sys.argv[position + 1]
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                os.environ[name] = count


MKL_ASKS = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def restart_with_fast_mkl():
    """MKL takes a slow path on CPUs that are not Intel's, even with AVX-512; this answers its question with yes.

    Compiles one function into a library of its own and starts this program again with it loaded first. Processes that the
    program starts inherit the library; the program removes it at its end.
    """
    if "PARAXIS_FAST_MKL" in os.environ:
        owner, folder = os.environ["PARAXIS_FAST_MKL"].split(":", 1)
        if owner == str(os.getpid()):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return
    folder = tempfile.mkdtemp()
    source, library = os.path.join(folder, "mkl.c"), os.path.join(folder, "mkl.so")
    with open(source, "w") as file:
        file.write(MKL_ASKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {**os.environ, "PARAXIS_FAST_MKL": f"{os.getpid()}:{folder}", "LD_PRELOAD": library}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


limit_threads_early()
if "--fast-mkl" in sys.argv:
    restart_with_fast_mkl()

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    print(json.dumps({"skipped": f"PyTorch is not installed for {sys.executable}"}))
    sys.exit(0)

IGNORED = -1


class FusedLstm(nn.Module):
    """MXNet's model-parallel LSTM with the layers as one nn.LSTM."""

    def __init__(self, vocabulary, width, hidden, layers, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, layers, dropout=dropout)
        self.decoder = nn.Linear(hidden, vocabulary)

    def forward(self, tokens):
        return self.decoder(self.lstm(self.embedding(tokens))[0])


class LayeredLstm(nn.Module):
    """The same model with one nn.LSTM per layer."""

    def __init__(self, vocabulary, width, hidden, layers, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(nn.LSTM(hidden if i else width, hidden) for i in range(layers))
        self.dropout = dropout
        self.decoder = nn.Linear(hidden, vocabulary)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for i, layer in enumerate(self.layers):
            x = layer(F.dropout(x, self.dropout, self.training) if i else x)[0]
        return self.decoder(x)


class Block(nn.Module):
    """Pre-LN transformer block: causal attention, then an MLP with GELU."""

    def __init__(self, width, heads, manual):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.manual = heads, manual

    def attend(self, q, k, v):
        if not self.manual:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        length = q.shape[2]
        mask = torch.full((length, length), -math.inf).triu(1)
        return torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + mask, -1) @ v

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.project(self.norm1(x)).split(width, -1)
        )
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Embedding of tokens and positions, blocks, final norm, decoder."""

    def __init__(self, vocabulary, width, heads, blocks, length, manual):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, manual) for _ in range(blocks)))
        self.norm, self.decoder = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.decoder(self.norm(self.blocks(self.embedding(tokens) + self.positions.weight)))


def convolutional():
    """1x28x28 → 32x28x28 → 64x28x28 → pool 14 → 64x14x14 → pool 7 → 128 → 10; convolutions 3x3, padding 1."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def fastest_settings(optimizer):
    """The fused CPU kernel of newer versions where there is one; older versions loop over the parameters."""
    takes_fused = "fused" in inspect.signature(optimizer).parameters
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    return {"fused": True} if takes_fused and version >= (2, 5) else {"foreach": False}


def token_loss(model, tokens, targets):
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class Lstm:
    variants = ("fused", "layers")
    unit, units = "tokens", 20 * 32
    model = "embedding 200 of 10000, 8 LSTM layers of 400, dropout 0.5 between layers, decoder; T 32, batch 20; SGD 0.1, clip 5"

    def __init__(self, variant):
        vocabulary, steps, batch = 10_000, 32, 20
        self.net = {"fused": FusedLstm, "layers": LayeredLstm}[variant](vocabulary, 200, 400, 8, 0.5)
        for p in self.net.parameters():
            nn.init.uniform_(p, -0.1, 0.1)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, **fastest_settings(torch.optim.SGD))
        self.batches = [torch.randint(vocabulary, (2, steps, batch)) for _ in range(8)]

    def loss(self, batch):
        return token_loss(self.net, batch[0], batch[1])

    def clip(self):
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)


class TransformerTraining:
    variants = ("fused-attention", "plain-attention")
    unit, units = "tokens", 16 * 128
    model = "vocabulary 1000, 2 pre-LN blocks, width 512, 8 heads, MLP 2048, GELU, causal; length 128, batch 16; AdamW"

    def __init__(self, variant):
        vocabulary, length, batch = 1000, 128, 16
        self.net = Transformer(vocabulary, 512, 8, 2, length, variant == "plain-attention")
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-4, **fastest_settings(torch.optim.AdamW))
        self.batches = [torch.randint(vocabulary, (2, batch, length)) for _ in range(8)]

    def loss(self, batch):
        return token_loss(self.net, batch[0], batch[1])

    def clip(self):
        pass


class Convolution:
    variants = ("channels-last", "channels-first")
    unit, units = "samples", 64
    model = "MNIST-sized, convolutions 3x3 32-64-64 with padding 1, linear 128, 10; batch 64; SGD 0.01 with momentum 0.9"

    def __init__(self, variant):
        layout = torch.channels_last if variant == "channels-last" else torch.contiguous_format
        self.net = convolutional().to(memory_format=layout)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.01, momentum=0.9, **fastest_settings(torch.optim.SGD)
        )
        self.batches = [
            (torch.rand(64, 1, 28, 28).to(memory_format=layout), torch.randint(10, (64,))) for _ in range(8)
        ]

    def loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def clip(self):
        pass


WORKLOADS = {"lstm": Lstm, "transformer": TransformerTraining, "conv": Convolution}


def blas(fast_mkl):
    """What multiplies matrices, as far as PyTorch tells."""
    built_with = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    name = built_with.group(1) if built_with else "unknown"
    return name + (" on its fast path" if name == "mkl" and fast_mkl else "")


class Trainer:
    """Runs whole training steps on a cycle of eight batches and remembers the last loss."""

    def __init__(self, workload, compiled):
        self.workload, self.done, self.last_loss = workload, 0, None
        self.loss = torch.compile(workload.loss) if compiled else workload.loss

    def step(self):
        batch = self.workload.batches[self.done % len(self.workload.batches)]
        start, cpu = time.perf_counter(), time.process_time()
        self.workload.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        self.workload.clip()
        self.workload.optimizer.step()
        self.last_loss = loss.item()
        self.done += 1
        return time.perf_counter() - start, time.process_time() - cpu


def serve(trainer, description):
    """One line of JSON when ready, then one per "run K"; ends at the end of input."""
    print(json.dumps({"ready": True, **description}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if len(words) == 2 and words[0] == "run" and words[1].isdigit():
            runs = [trainer.step() for _ in range(int(words[1]))]
            times = {"stepSeconds": [wall for wall, _ in runs], "cpuSeconds": [cpu for _, cpu in runs]}
            print(json.dumps({**times, "loss": trainer.last_loss}), flush=True)
        elif words:
            print(json.dumps({"error": f"expected \"run K\", got {line.strip()!r}"}), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Train with PyTorch on the CPU and time the steps.")
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before timing")
    parser.add_argument("--variant", help="how the model is written; the default is the fastest measured")
    parser.add_argument("--compile", action="store_true", help="with torch.compile (needs a C++ compiler)")
    parser.add_argument("--fast-mkl", action="store_true", help="let MKL use its best kernels on a CPU that is not Intel's")
    parser.add_argument("--no-onednn", action="store_true", help="without oneDNN's kernels")
    parser.add_argument("--json", action="store_true", help="one line of JSON (otherwise a sentence)")
    parser.add_argument("--serve", action="store_true", help='read "run K" from standard input')
    arguments = parser.parse_args()

    kind = WORKLOADS[arguments.workload]
    variant = arguments.variant or kind.variants[0]
    if variant not in kind.variants:
        parser.error(f"{arguments.workload} has the variants {', '.join(kind.variants)}; got {variant}")
    if variant == "fused-attention" and not hasattr(F, "scaled_dot_product_attention"):
        variant = "plain-attention"

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    if arguments.no_onednn:
        torch.backends.mkldnn.enabled = False
    torch.manual_seed(1)
    trainer = Trainer(kind(variant), arguments.compile)
    description = {
        "workload": arguments.workload,
        "model": kind.model,
        "variant": variant + (", compiled" if arguments.compile else "") + (", no oneDNN" if arguments.no_onednn else ""),
        "torch": torch.__version__,
        "blas": blas(arguments.fast_mkl),
        "threads": arguments.threads,
        "unit": kind.unit,
        "unitsPerStep": kind.units,
    }
    for _ in range(arguments.warm_up):
        trainer.step()
    if arguments.serve:
        serve(trainer, description)
        return
    runs = [trainer.step() for _ in range(arguments.steps)]
    seconds = [wall for wall, _ in runs]
    median = statistics.median(seconds)
    result = {
        **description,
        "cpuSeconds": statistics.median(cpu for _, cpu in runs),
        "stepSeconds": {"median": median, "min": min(seconds), "max": max(seconds)},
        "tokensOrSamplesPerSecond": kind.units / median,
        "loss": trainer.last_loss,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['workload']}, torch {torch.__version__}, {arguments.threads} threads, {result['variant']}: "
              f"{1000 * median:.1f} ms per step, {result['tokensOrSamplesPerSecond']:.0f} {kind.unit}/s, "
              f"loss {trainer.last_loss:.4f}")


if __name__ == "__main__":
    main()
