"""A simulator that can only be run, trained between two linear layers with Adam."""

import numpy as np
import torch

import zo_bilevel as zb


def simulate(phi):
    """A damped oscillator by explicit steps; phi: frequency, damping, push."""
    position, speed, path = 0.0, phi[2], []
    for _ in range(20):
        speed += 0.1 * (-(phi[0] ** 2) * position - phi[1] * speed)
        position += 0.1 * speed
        path.append(position)
    return np.array(path)


torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Linear(2, 3),
    zb.BlackBox(simulate, num_parameters=3, estimator=zb.FG2UZO(3)),
    torch.nn.Linear(20, 1),
)
inputs = torch.randn(32, 2)
targets = torch.sin(inputs[:, :1]) * inputs[:, 1:]
optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
for epoch in range(61):
    loss = torch.nn.functional.mse_loss(net(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 20 == 0:
        print(f"epoch {epoch:3}: loss {loss.item():.4f}")
