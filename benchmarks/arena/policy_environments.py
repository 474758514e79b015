"""Five small worlds to control: they swing, fall, hop, land and bounce. One return a rollout.

Each begins at a drawn state, ends early when it falls or crashes (the return jumps there), and runs
in a few milliseconds. A policy is a flat vector of weights: one matrix, or two with a layer of
tanh units between; its outputs lie in [-1, 1]. Last columns are biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Policy: TypeAlias = Callable[[Sequence[float]], FloatArray]
Rollout: TypeAlias = Callable[[Policy, np.random.Generator], float]

GRAVITY = 9.81


def cart_pole(policy: Policy, rng: np.random.Generator) -> float:
    """Swing a hanging pole up by pushing its cart, and hold it; beyond 2.4 m the run is over.

    Sees position, speed, cosine, sine and rate of the angle from upright; pushes with 10 N.
    Return: sum of the cosine, minus 1 for each of the 250 steps that is not reached.
    """
    x, v, angle, rate = *rng.normal(0, 0.05, 2), math.pi + rng.normal(0, 0.05), rng.normal(0, 0.05)
    total, steps, dt = 0.0, 250, 0.02
    for step in range(steps):
        cosine, sine = math.cos(angle), math.sin(angle)
        push = 10 * policy((x, v, cosine, sine, 0.3 * rate))[0]
        shared = (push + 0.05 * rate**2 * sine) / 1.1
        turn = (GRAVITY * sine - cosine * shared) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        v += dt * (shared - 0.05 * turn * cosine / 1.1)
        rate += dt * turn
        x, angle = x + dt * v, angle + dt * rate
        if abs(x) > 2.4:
            return total - (steps - step)
        total += cosine
    return total


def acrobot(policy: Policy, rng: np.random.Generator) -> float:
    """Throw the tip of a double pendulum up by a torque at its middle joint.

    Sees cosines, sines and rates of both joints. Return: minus the steps, of 300, until the tip is
    1.5 m above the shoulder; minus 300 and what is missing of the height when it never is.
    """
    first, second, rate1, rate2 = rng.normal(0, 0.05, 4)
    highest, steps, dt = -2.0, 300, 0.03
    for step in range(steps):
        cos2, sin2 = math.cos(second), math.sin(second)
        seen = (math.cos(first), math.sin(first), cos2, sin2, 0.2 * rate1, 0.2 * rate2)
        torque = 3 * policy(seen)[0]
        d1, d2 = 3.5 + cos2, 1.25 + 0.5 * cos2  # unit masses, lengths and inertias
        phi2 = 0.5 * GRAVITY * math.sin(first + second)
        phi1 = -0.5 * rate2 * (rate2 + 2 * rate1) * sin2 + 1.5 * GRAVITY * math.sin(first) + phi2
        turn2 = torque + d2 / d1 * phi1 - 0.5 * rate1**2 * sin2 - phi2
        turn2 /= 1.25 - d2**2 / d1
        turn1 = -(d2 * turn2 + phi1) / d1
        rate1 = min(max(rate1 + dt * turn1, -12.0), 12.0)
        rate2 = min(max(rate2 + dt * turn2, -28.0), 28.0)
        first, second = first + dt * rate1, second + dt * rate2
        highest = max(highest, -math.cos(first) - math.cos(first + second))
        if highest > 1.5:
            return float(-step)
    return -steps - (1.5 - highest)


def hopper(policy: Policy, rng: np.random.Generator) -> float:
    """Hop forward on a springy leg without mass under a body that may tip over.

    Sees height, both speeds, pitch and its rate, leg angle, leg length, whether the foot stands,
    how long it has, and how far the leg is ahead of the speed; turns the leg in the air, pushes
    and twists on the ground. Return: metres forward and 2 for each second, until it falls or
    4 seconds are over.
    """
    z, vx, vz, pitch, spin = 1.1 + rng.normal(0, 0.02), rng.normal(0, 0.1), 0.0, 0.0, 0.0
    pitch, leg, x, foot, stood = rng.normal(0, 0.02), 0.0, 0.0, math.nan, 0.0
    dt, steps, action = 0.005, 800, np.zeros(3)
    for step in range(steps):
        stands = not math.isnan(foot)
        length = math.hypot(x - foot, z) if stands else 1.0
        if step % 2 == 0:
            foothold = (leg, length - 1, float(stands), stood, leg - 0.2 * vx)
            action = policy((z - 1, vx, vz, pitch, spin, *foothold))
        if stands:
            leg, stood = math.atan2(foot - x, z), stood + dt
            push = 200 * (1.0 - length + 0.05 * (1 + action[1]))  # 2000 N/m over 10 kg
            twist = 40 * action[2]
            sine, cosine = (foot - x) / length, z / length
            vx += dt * (-push * sine - twist / (10 * length) * cosine)
            vz += dt * (push * cosine - twist / (10 * length) * sine - GRAVITY)
            spin += dt * twist / 2
            if length > 1.0 and vz > 0:
                foot, stood = math.nan, 0.0
        else:
            vz -= dt * GRAVITY
            leg = min(max(leg + dt * 6 * action[0], -0.8), 0.8)
            if vz < 0 and z < math.cos(leg):
                foot = x + math.sin(leg) + rng.normal(0, 0.005)
        x, z, pitch = x + dt * vx, z + dt * vz, pitch + dt * spin
        if z < 0.6 or abs(pitch) > 0.7:
            break
    return x + 2 * (step + 1) * dt


def lander(policy: Policy, rng: np.random.Generator) -> float:
    """Set a craft down softly on a pad by a throttle and a pair of side jets, in gusts.

    Sees position, speed, angle and its rate. Return: 100 minus fuel and what speed, angle and
    distance cost at touch-down; a crash, or no landing within 6 seconds, costs 100 more.
    """
    x, z, vx, vz = rng.normal(0, 0.5), 3.0, rng.normal(0, 0.2), -0.5
    angle, spin, fuel, dt, gust = rng.normal(0, 0.1), 0.0, 0.0, 0.02, 0.0
    for _ in range(300):
        throttle, side = policy((x, z, vx, vz, angle, spin))
        throttle = 0.5 * (throttle + 1)
        gust += dt * (-gust + 2 * rng.normal())
        vx += dt * (-4 * throttle * math.sin(angle) + 0.3 * gust)
        vz += dt * (4 * throttle * math.cos(angle) - 1.6)
        spin += dt * 4 * side
        x, z, angle = x + dt * vx, z + dt * vz, angle + dt * spin
        fuel += dt * (3 * throttle + abs(side))
        if z <= 0:
            miss = 10 * math.hypot(vx, vz) + 20 * abs(angle) + 5 * abs(x)
            has_crashed = vz < -1.0 or abs(vx) > 0.5 or abs(angle) > 0.3
            return float(100 - fuel - min(miss, 100) - 100 * has_crashed)
        if abs(angle) > 1.5 or abs(x) > 5 or z > 6:
            break
    return -100 - fuel - 10 * min(abs(z), 6) - 5 * min(abs(x), 5)


def paddle(policy: Policy, rng: np.random.Generator) -> float:
    """Keep a ball bouncing on a paddle that moves in both directions and tilts.

    Sees the ball beside and above the paddle, its speeds, the paddle's speeds, place and height.
    Return: 1 for each 0.1 s that the ball stays above the paddle, and 5 for each bounce that takes
    it half a metre above; it ends when the ball falls past the paddle, or after 6 s.
    """
    bx, bz, bvx, bvz = rng.normal(0, 0.1), 1.0, rng.normal(0, 0.1), 0.0
    px, pz, pvx, pvz, tilt, total, dt = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01
    rises = False
    for _ in range(600):
        ax, az, lean = policy((bx - px, bz - pz, bvx, 0.3 * bvz, pvx, pvz, px, pz))
        pvx += dt * (20 * ax - 2 * pvx)
        pvz += dt * (20 * az - 2 * pvz - 30 * pz)
        tilt += dt * 10 * (0.3 * lean - tilt)
        px, pz, bvz = px + dt * pvx, pz + dt * pvz, bvz - dt * GRAVITY
        bx, bz = bx + dt * bvx, bz + dt * bvz
        if bz <= pz and bvz < pvz and abs(bx - px) < 0.3:
            normal = (-math.sin(tilt + rng.normal(0, 0.01)), math.cos(tilt))
            closing = (bvx - pvx) * normal[0] + (bvz - pvz) * normal[1]
            bvx, bvz = bvx - 1.8 * closing * normal[0], bvz - 1.8 * closing * normal[1]
            bz, rises = pz, True
        elif bz < pz - 0.1:
            break
        if rises and bvz < 0:
            total, rises = total + 5 * (bz - pz > 0.5), False
        total += 10 * dt
    return total


@dataclass(frozen=True)
class Environment:
    """A world and the shape of the policies for it.

    Args:
        rollout: From a policy and random numbers to a return.
        inputs: Numbers that a policy sees.
        hidden: Units between, or 0 for one matrix.
        outputs: Numbers that it gives.
    """

    rollout: Rollout
    inputs: int
    hidden: int
    outputs: int

    @property
    def size(self) -> int:
        """Weights of a policy, biases included."""
        if not self.hidden:
            return self.outputs * (self.inputs + 1)
        return self.hidden * (self.inputs + 1) + self.outputs * (self.hidden + 1)

    def policy(self, weights: FloatArray) -> Policy:
        """The policy of a flat vector of weights, shape `(size,)`."""
        layers = [(self.inputs, self.hidden), (self.hidden, self.outputs)]
        if not self.hidden:
            layers = [(self.inputs, self.outputs)]
        matrices, place = [], 0
        for width, height in layers:
            stop = place + height * (width + 1)
            matrices.append(weights[place:stop].reshape(height, width + 1))
            place = stop

        def act(seen: Sequence[float]) -> FloatArray:
            values = np.array(seen)
            for matrix in matrices:
                values = np.tanh(matrix[:, :-1] @ values + matrix[:, -1])
            return values

        return act


ENVIRONMENTS = {
    "cart-pole": Environment(cart_pole, 5, 4, 1),
    "acrobot": Environment(acrobot, 6, 4, 1),
    "hopper": Environment(hopper, 10, 0, 3),
    "lander": Environment(lander, 6, 3, 2),
    "paddle": Environment(paddle, 8, 0, 3),
}
