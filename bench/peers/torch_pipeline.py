#!/usr/bin/env python3
"""MXNet's model-parallel LSTM on torch.distributed.pipelining: two processes of one thread each, gloo between them.

  python3 torch_pipeline.py --schedule 1f1b --steps 5 --json
  python3 torch_pipeline.py --schedule gpipe --serve     reads lines "run K", answers each with one line of JSON

Stage 0 holds the embedding and layers 0-3, stage 1 layers 4-7 and the decoder. One step streams several micro-batches of 20
sentences of 32 words and ends with one update. `--schedule none` does the same mathematics in one process with one thread.
Needs PyTorch 2.5 or later.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from pytorch_train import IGNORED, WORKLOADS, blas, fastest_settings  # also limits threads and may restart for MKL

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

VOCABULARY, WIDTH, HIDDEN, LENGTH, SENTENCES, RATE, LIMIT = 10_000, 200, 400, 32, 20, 0.1, 5.0
STAGES = 2


class ContiguousBothWays(torch.autograd.Function):
    """Identity whose value and gradient are contiguous: gloo sends nothing else, and batch_first works on transposed views."""

    @staticmethod
    def forward(context, x):
        return x.contiguous()

    @staticmethod
    def backward(context, gradient):
        return gradient.contiguous()


class FirstStage(nn.Module):
    """tokens [B, T] → h of layer 3 [B, T, 400], dropped out as between any two layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, 4, dropout=0.5, batch_first=True)

    def forward(self, tokens):
        return F.dropout(ContiguousBothWays.apply(self.lstm(self.embedding(tokens))[0]), 0.5, self.training)


class LastStage(nn.Module):
    """[B, T, 400] → logits [B, T, 10000]."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, 4, dropout=0.5, batch_first=True)
        self.decoder = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, x):
        return self.decoder(self.lstm(ContiguousBothWays.apply(x))[0])


def token_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def clip(parameters, across_stages):
    """Scales all gradients so that their norm over both stages is at most LIMIT."""
    squared = torch.stack([p.grad.square().sum() for p in parameters]).sum()
    if across_stages:
        dist.all_reduce(squared)
    scale = (LIMIT / (squared.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([p.grad for p in parameters], scale)


class Part:
    """What one process holds: its module, its optimizer, and how to run all micro-batches forward and backward."""

    def __init__(self, module, across_stages, run):
        self.parameters = list(module.parameters())
        for p in self.parameters:
            nn.init.uniform_(p, -0.1, 0.1)
        self.optimizer = torch.optim.SGD(self.parameters, lr=RATE, **fastest_settings(torch.optim.SGD))
        self.across_stages, self.run, self.last_loss = across_stages, run, None

    def step(self, batch):
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.last_loss = self.run(*batch)
        clip(self.parameters, self.across_stages)
        self.optimizer.step()
        return time.perf_counter() - start


def single_process(micro_batches):
    module = nn.Sequential(FirstStage(), LastStage())

    def run(tokens, targets):
        losses = []
        for part, expected in zip(tokens.chunk(micro_batches), targets.chunk(micro_batches)):
            loss = token_loss(module(part), expected) / micro_batches
            loss.backward()
            losses.append(loss.item())
        return sum(losses)

    return Part(module, False, run)


def stage_process(rank, schedule_name, micro_batches):
    from torch.distributed import pipelining

    module = FirstStage() if rank == 0 else LastStage()
    part = Part(module, True, None)
    stage = pipelining.PipelineStage(module, rank, STAGES, torch.device("cpu"))
    schedule = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B}[schedule_name](
        stage, micro_batches, loss_fn=token_loss
    )

    def run(tokens, targets):
        losses = []
        if rank == 0:
            schedule.step(tokens)
        else:
            schedule.step(target=targets, losses=losses)
        return sum(loss.item() for loss in losses) / micro_batches if losses else None

    part.run = run
    return part


def batches(micro_batches):
    """The same eight batches in both processes."""
    source = torch.Generator().manual_seed(2)
    shape = (2, micro_batches * SENTENCES, LENGTH)
    return [torch.randint(VOCABULARY, shape, generator=source) for _ in range(8)]


def join(rank, store):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=STAGES, timeout=datetime.timedelta(seconds=120)
    )


class Runner:
    """Runs K steps on every process: stage 0 is told how many, the others hear it from stage 0."""

    def __init__(self, part, micro_batches):
        self.part, self.batches, self.done = part, batches(micro_batches), 0

    def run(self, count):
        seconds = []
        if self.part.across_stages:
            dist.broadcast(torch.tensor([count]), src=0)
        for _ in range(count):
            seconds.append(self.part.step(self.batches[self.done % len(self.batches)]))
            self.done += 1
        loss = self.part.last_loss
        if self.part.across_stages and count > 0:
            shared = torch.tensor([loss if loss is not None else 0.0])
            dist.broadcast(shared, src=STAGES - 1)
            loss = shared.item()
        return seconds, loss

    def follow(self):
        """The life of a process that is not stage 0; a count of 0 ends it."""
        while True:
            count = torch.tensor([0])
            dist.broadcast(count, src=0)
            if count.item() == 0:
                return
            for _ in range(int(count.item())):
                self.part.step(self.batches[self.done % len(self.batches)])
                self.done += 1
            dist.broadcast(torch.tensor([self.part.last_loss]), src=STAGES - 1)

    def finish(self):
        if self.part.across_stages:
            dist.broadcast(torch.tensor([0]), src=0)


def serve(runner, description):
    print(json.dumps({"ready": True, **description}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if len(words) == 2 and words[0] == "run" and words[1].isdigit() and int(words[1]) > 0:
            seconds, loss = runner.run(int(words[1]))
            print(json.dumps({"stepSeconds": seconds, "loss": loss}), flush=True)
        elif words:
            print(json.dumps({"error": f"expected \"run K\", got {line.strip()!r}"}), flush=True)


def report(runner, description, steps, as_json):
    seconds, loss = runner.run(steps)
    median = statistics.median(seconds)
    result = {
        **description,
        "stepSeconds": {"median": median, "min": min(seconds), "max": max(seconds)},
        "tokensPerSecond": description["unitsPerStep"] / median,
        "loss": loss,
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(f"lstm, torch {torch.__version__}, {description['schedule']}, {description['processes']} processes: "
              f"{1000 * median:.0f} ms per step, {result['tokensPerSecond']:.0f} tokens/s, loss {loss:.4f}")


def lead(arguments, store):
    """Stage 0, or the only process."""
    alone = arguments.schedule == "none"
    if not alone:
        join(0, store)
    count = arguments.micro_batches
    part = single_process(count) if alone else stage_process(0, arguments.schedule, count)
    runner = Runner(part, count)
    description = {
        "workload": "lstm",
        "model": WORKLOADS["lstm"].model,
        "schedule": arguments.schedule,
        "processes": 1 if alone else STAGES,
        "threads": 1,
        "microBatches": count,
        "torch": torch.__version__,
        "blas": blas(arguments.fast_mkl),
        "unit": "tokens",
        "unitsPerStep": count * SENTENCES * LENGTH,
    }
    if arguments.warm_up > 0:
        runner.run(arguments.warm_up)
    if arguments.serve:
        serve(runner, description)
    else:
        report(runner, description, arguments.steps, arguments.json)
    runner.finish()


def main():
    parser = argparse.ArgumentParser(description="Train MXNet's LSTM on torch.distributed.pipelining and time the steps.")
    parser.add_argument("--schedule", choices=("gpipe", "1f1b", "none"), default="1f1b")
    parser.add_argument("--micro-batches", type=int, default=4, help="of 20 sentences, per step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before timing")
    parser.add_argument("--fast-mkl", action="store_true", help="let MKL use its best kernels on a CPU that is not Intel's")
    parser.add_argument("--json", action="store_true", help="one line of JSON (otherwise a sentence)")
    parser.add_argument("--serve", action="store_true", help='read "run K" from standard input')
    parser.add_argument("--stage", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 5):
        print(json.dumps({"skipped": f"torch.distributed.pipelining needs PyTorch 2.5 or later; this is {torch.__version__}"}))
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(1 + arguments.stage)
    if arguments.stage > 0:
        join(arguments.stage, arguments.store)
        Runner(stage_process(arguments.stage, arguments.schedule, arguments.micro_batches), arguments.micro_batches).follow()
        dist.destroy_process_group()
        return
    if arguments.schedule == "none":
        lead(arguments, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        command = [sys.executable, *sys.argv, "--stage", "1", "--store", store]
        other = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        try:
            lead(arguments, store)
            dist.destroy_process_group()
            other.wait(60)
        finally:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
