"""Fine-tuning by forward passes: share of bare inference, and loss at equal passes against MeZO.

A small GPT-2 of characters, trained on half of Python's documentation strings, is tuned on the
other half. `python benchmarks/zeroth_order_fine_tuning.py [share quality] [--device cuda]`; five
minutes on one core. Needs transformers.
"""

import argparse
import copy
import statistics
import time
from functools import partial

import torch

import zo_bilevel as zb
from zo_bilevel.tasks.documentation import documents, rows_of_bytes
from zo_bilevel.tasks.language_models import make_gpt2, token_losses, train_on

SIZES = ((32, 1, 1, 8), (64, 2, 8, 4), (256, 4, 8, 4), (320, 8, 16, 2))


KINDS = {
    "MeZO": {"perturbation": "gaussian"},
    "rademacher": {"perturbation": "rademacher"},
    "low rank": {"momentum": 0.9},
    "low rank, in one pass": {"momentum": 0.9},
}


def share(options):
    """CPU time (GPU: wall time) of bare forward passes over that of a step; median of five."""
    print(f"{'weights':>10} {'batch':>5} {'directions':>10}   {'   '.join(KINDS)}")
    for width, layers, rows, directions in SIZES:
        model = make_gpt2(width=width, layers=layers, length=128).to(options.device)
        batch = torch.randint(1, 127, (rows, 128), device=options.device)
        count = sum(w.numel() for w in model.parameters())
        shares = zip(KINDS, shares_of(model, batch, directions, options.device), strict=True)
        print(
            f"{count:10,} {rows:5} {directions:10}   "
            + "   ".join(f"{found:{len(name)}.2f}" for name, found in shares),
            flush=True,
        )


def shares_of(model, batch, directions, device):
    kinds = [dict(kind) for kind in KINDS.values()]
    kinds[-1] |= {"module": model, "chunk": directions}
    optimizers = [
        zb.ZerothOrderSGD(model.parameters(), lr=1e-6, num_directions=directions, **kind)
        for kind in kinds
    ]
    loss = partial(loss_of, model, batch)
    found = []
    for _ in range(5):
        bare = timed(lambda: [loss() for _ in range(2 * directions)], device)
        found.append([bare / timed(partial(o.step, loss), device) for o in optimizers])
    return [statistics.median(column) for column in zip(*found, strict=True)]


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
    """Loss on held-out documents, median (quartiles); rates chosen on two seeds not counted."""
    texts = torch.from_numpy(rows_of_bytes([d.text for d in documents()], 48)).to(options.device)
    model = make_gpt2(width=32, layers=1, length=48).to(options.device)
    train_on(model, texts[::2], 300)
    rows = texts[1::2][torch.randperm(len(texts[1::2]), generator=seeded(0))]
    held_out, train = rows[:64], rows[64:]
    print(
        f"before: {loss_of(model, held_out):.4f}; {options.passes} forward passes each", flush=True
    )
    for name, (make, scale) in RIVALS.items():

        def losses(rate, seeds, make=make):
            return [tuned(model, train, held_out, s, rate, make, options.passes) for s in seeds]

        rates = [scale * rate for rate in options.rates]
        medians = [statistics.median(losses(rate, (1000, 1001))) for rate in rates]
        best = min(zip(medians, rates, strict=True))[1]
        low, middle, high = statistics.quantiles(losses(best, range(options.seeds)), n=4)
        tried = ", ".join(f"{r:g}: {m:.3f}" for r, m in zip(rates, medians, strict=True))
        print(
            f"{name:18} {middle:.4f} ({low:.4f} to {high:.4f}) at rate {best:g}; tried {tried}",
            flush=True,
        )


def tuned(start, train, held_out, seed, rate, make, passes):
    model = copy.deepcopy(start).requires_grad_(True)
    step = make(model, rate, seed)
    generator = seeded(seed)
    for _ in range(passes // 2):
        batch = train[torch.randint(len(train), (16,), generator=generator)]
        step(lambda batch=batch: loss_of(model, batch))
    return float(loss_of(model, held_out))


def plain_mezo(model, rate, seed, radius=1e-3):
    """Algorithm 1 of Malladi et al. (2023), arXiv 2305.17333, as it stands."""
    seeds = iter(torch.randint(2**31, (10**6,), generator=seeded(seed)).tolist())

    def move(seed, distance):
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.data.add_(torch.randn_like(weight), alpha=distance)

    def step(closure):
        seed = next(seeds)
        move(seed, radius)
        above = closure()
        move(seed, -2 * radius)
        below = closure()
        move(seed, radius)
        move(seed, -rate * float(above - below) / (2 * radius))

    return step


def ours(**options):
    def make(model, rate, seed):
        return zb.ZerothOrderSGD(model.parameters(), lr=rate, seed=seed, **options).step

    return make


RIVALS = {  # and the factor of the rates, 1 - momentum
    "MeZO, written out": (plain_mezo, 1.0),
    "rademacher": (ours(perturbation="rademacher"), 1.0),
    "low rank": (ours(), 1.0),
    "low rank, momentum": (ours(momentum=0.9), 0.1),
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


SECTIONS = {"share": share, "quality": quality}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=" ".join(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=800)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"sections must be among {' '.join(SECTIONS)}, got {' '.join(unknown)}")
    for name in options.sections:
        print(f"\n{name}: {SECTIONS[name].__doc__.splitlines()[0]}")
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
