"""Fine-tuning by forward passes: share of bare inference, and loss at equal passes against MeZO.

A small GPT-2 of characters, trained on half of Python's documentation strings, is tuned on the
other half. `python benchmarks/zeroth_order_fine_tuning.py [share quality] [--device cuda]`; five
minutes on one core. Needs transformers.
"""

import argparse
import copy
import statistics
import time

import torch

import zo_bilevel as zb
from zo_bilevel.tasks.documentation import documents, rows_of_bytes
from zo_bilevel.tasks.language_models import make_gpt2
from zo_bilevel.tasks.online_adaptation import token_losses, train_on

MEZO = {"perturbation": "gaussian"}
LOW_RANK = {"perturbation": "low_rank", "momentum": 0.9}


def share(options):
    """CPU or GPU time of the forward passes alone over that of a whole step; median of seven."""
    print(f"{'weights':>10} {'batch':>6}  MeZO   low rank")
    for width, layers, rows in ((64, 2, 8), (256, 4, 8), (320, 8, 16)):
        model = make_gpt2(width=width, layers=layers, length=128).to(options.device)
        batch = torch.randint(1, 127, (rows, 128), device=options.device)
        shares = [share_of(model, batch, kind, options.device) for kind in (MEZO, LOW_RANK)]
        count = sum(w.numel() for w in model.parameters())
        print(f"{count:10,} {rows:6}  {shares[0]:.2f}   {shares[1]:.2f}", flush=True)


def share_of(model, batch, kind, device):
    optimizer = zb.ZerothOrderSGD(model.parameters(), lr=1e-6, **kind)
    found = []
    for _ in range(7):
        bare = timed(lambda: [loss_of(model, batch) for _ in range(2)], device)
        found.append(bare / timed(lambda: optimizer.step(lambda: loss_of(model, batch)), device))
    return statistics.median(found)


def timed(function, device):
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device == "cuda" else time.process_time
    started = clock()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


@torch.no_grad()
def loss_of(model, batch):
    losses = token_losses(model(batch).logits, batch)
    return losses.sum() / (batch[:, :-1] != 0).sum()


def quality(options):
    """Loss on held-out documents after equal forward passes; each at its best rate of four."""
    texts = torch.from_numpy(rows_of_bytes([d.text for d in documents()], 48)).to(options.device)
    model = make_gpt2(width=32, layers=1, length=48).to(options.device)
    train_on(model, texts[::2], 300)
    rows = texts[1::2][torch.randperm(len(texts[1::2]), generator=seeded(0))]
    held_out, train = rows[:64], rows[64:]
    print(f"before: {loss_of(model, held_out):.4f}; {options.passes} forward passes each")
    for name, kind in (("MeZO", MEZO), ("low rank, momentum", LOW_RANK)):
        best = {}
        for rate in options.rates:
            best[rate] = [
                tuned(model, train, held_out, seed, rate, kind, options.passes)
                for seed in range(options.seeds)
            ]
        rate = min(best, key=lambda r: statistics.median(best[r]))
        found = best[rate]
        print(
            f"{name:20} {statistics.median(found):.4f} ({min(found):.4f} to {max(found):.4f}) "
            f"at rate {rate:g}",
            flush=True,
        )


def tuned(start, train, held_out, seed, rate, kind, passes):
    model = copy.deepcopy(start).requires_grad_(True)
    rate = rate * (0.1 if kind is LOW_RANK else 1.0)  # momentum of 0.9 makes steps ten times longer
    optimizer = zb.ZerothOrderSGD(model.parameters(), lr=rate, seed=seed, **kind)
    generator = seeded(seed)
    for _ in range(passes // 2):
        batch = train[torch.randint(len(train), (16,), generator=generator)]
        optimizer.step(lambda batch=batch: loss_of(model, batch))
    return float(loss_of(model, held_out))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


SECTIONS = {"share": share, "quality": quality}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=" ".join(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=2000)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"sections must be among {' '.join(SECTIONS)}, got {' '.join(unknown)}")
    for name in options.sections:
        print(f"\n{name}: {SECTIONS[name].__doc__}")
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
