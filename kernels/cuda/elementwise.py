"""Bodies of ``kernels.elementwise``; arguments are checked there."""

from __future__ import annotations

import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 256


def _grid(n: int) -> int:
    return blocks(n, THREADS)


def add_with(a: Tensor, b: Tensor, constant: int, out: Tensor) -> None:
    """out = a + b + constant; all contiguous."""
    n = out.numel()
    launch("add_with", _grid(n), THREADS, a, b, constant, out, n)


def multiply_mask(x: Tensor, y: Tensor, mask: Tensor, constant: int, out: Tensor) -> None:
    """out = x y + mask + constant; all contiguous."""
    n = out.numel()
    launch("multiply_mask", _grid(n), THREADS, x, y, mask, constant, out, n)


def truncate_public(c: Tensor, f: int) -> tuple[Tensor, Tensor]:
    high, g = torch.empty_like(c), torch.empty_like(c)
    launch("truncate_public", _grid(c.numel()), THREADS, c, f, high, g, c.numel())
    return high, g


def open_truncate(mine: Tensor, theirs: Tensor, f: int) -> tuple[Tensor, Tensor]:
    high, g = torch.empty_like(mine), torch.empty_like(mine)
    launch("open_truncate", _grid(mine.numel()), THREADS, mine, theirs, f, high, g, mine.numel())
    return high, g


def truncate_dealer(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    high, top = torch.empty_like(r), torch.empty_like(r)
    launch("truncate_dealer", _grid(r.numel()), THREADS, r, f, high, top, r.numel())
    return high, top


def truncated_share(public: Tensor | None, g: Tensor, h: Tensor, b: Tensor, f: int) -> Tensor:
    out = torch.empty_like(g)
    launch("truncated_share", _grid(g.numel()), THREADS, public, g, h, b, f, out, g.numel())
    return out


def polynomial_parts(a: Tensor, c_hat: Tensor) -> Tensor:
    rows, terms = a.shape
    out = torch.empty((terms, rows), dtype=torch.int64, device=a.device)
    launch("polynomial_parts", _grid(rows), THREADS, a, c_hat, terms, out, rows)
    return out


def powers(s: Tensor, r_hat: Tensor, d: int) -> Tensor:
    out = torch.empty((d + 1, len(s)), dtype=torch.int64, device=s.device)
    launch("powers", _grid(len(s)), THREADS, s, r_hat, d + 1, out, len(s))
    return out
