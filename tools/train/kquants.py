"""Q4_K and Q6_K: quantize and dequantize rows, in numpy. Block layouts are GGUF's public ones.

Q4_K, 144 bytes for 256 weights: d, dmin (f16), eight 6-bit scales and mins in 12 bytes, 256 values of 4 bits;
      w = d*scale*q - dmin*min, one scale and min for 32 weights.
Q6_K, 210 bytes for 256 weights: low 4 bits, high 2 bits, sixteen int8 scales, d (f16); w = d*scale*(q-32),
one scale for 16 weights.

Both quantizers minimise a weighted squared error. The weight of an error is rms + |w|: large weights matter a
little more, since they carry most of a dot product.
"""
import numpy as np


def _importance(x):
    return np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + np.abs(x)


def _f16(x):
    return x.astype(np.float16).astype(np.float64)


def _fit_scale_min(x, w, levels):
    """Best s >= 0 and m >= 0 with x ~ s*q - m and q in 0..levels, for each row of x[rows, n]."""
    lo, hi = np.minimum(x.min(axis=-1), 0), x.max(axis=-1)
    sw, swx = w.sum(axis=-1), (w * x).sum(axis=-1)
    best_e, best_s, best_m = np.full(len(x), np.inf), np.zeros(len(x)), -lo
    for steps in np.arange(-1.2, 1.81, 0.1) + levels:
        inv = np.divide(steps, hi - lo, out=np.zeros_like(hi), where=hi > lo)
        q = np.clip(np.rint((x - lo[:, None]) * inv[:, None]), 0, levels)
        swq, swqq, swqx = (w * q).sum(axis=-1), (w * q * q).sum(axis=-1), (w * q * x).sum(axis=-1)
        det = sw * swqq - swq * swq
        ok = det > 0
        s = np.divide(sw * swqx - swq * swx, det, out=np.zeros_like(det), where=ok)
        m = np.divide(swq * swqx - swqq * swx, det, out=np.zeros_like(det), where=ok)
        no_min = ~ok | (
            m < 0
        )  # the format's min is never negative, and equal values have none: fit the scale alone
        s = np.where(no_min, np.divide(swqx, swqq, out=np.zeros_like(s), where=swqq > 0), s)
        m = np.where(no_min, 0, m)
        e = np.where((swqq > 0) & (s >= 0), (w * (s[:, None] * q - m[:, None] - x) ** 2).sum(axis=-1), np.inf)
        take = e < best_e
        best_e, best_s, best_m = (
            np.where(take, e, best_e),
            np.where(take, s, best_s),
            np.where(take, m, best_m),
        )
    return best_s, best_m


def quantize_q4_k(rows):
    """rows[N, K] of floats, K a multiple of 256 -> bytes, row after row."""
    x = np.asarray(rows, np.float64).reshape(-1, 8, 32)
    w = _importance(x)
    s, m = _fit_scale_min(x.reshape(-1, 32), w.reshape(-1, 32), 15)
    s, m = s.reshape(-1, 8), m.reshape(-1, 8)
    d, dmin = _f16(s.max(axis=1) / 63), _f16(m.max(axis=1) / 63)

    def parts(v, top):
        return np.clip(
            np.rint(np.divide(v, top[:, None], out=np.zeros_like(v), where=top[:, None] > 0)), 0, 63
        )

    sc0, mn0 = parts(s, d), parts(m, dmin)
    best_e = np.full(s.shape, np.inf)
    sc, mn, q = np.zeros_like(s), np.zeros_like(s), np.zeros_like(x)
    # The rounded scale and min are no longer the best pair: look at their neighbours with the values chosen
    # anew.
    for ds in (0, -1, 1, -2, 2):
        for dm in (0, -1, 1, -2, 2):
            a, b = np.clip(sc0 + ds, 0, 63), np.clip(mn0 + dm, 0, 63)
            step, off = (d[:, None] * a)[..., None], (dmin[:, None] * b)[..., None]
            t = np.clip(np.rint(np.divide(x + off, step, out=np.zeros_like(x), where=step > 0)), 0, 15)
            e = (w * (step * t - off - x) ** 2).sum(axis=-1)
            take = e < best_e
            best_e, sc, mn = np.where(take, e, best_e), np.where(take, a, sc), np.where(take, b, mn)
            q = np.where(take[..., None], t, q)
    sc, mn, q = sc.astype(np.uint8), mn.astype(np.uint8), q.astype(np.uint8)
    out = np.zeros((len(x), 144), np.uint8)
    out[:, 0:2] = d.astype(np.float16).view(np.uint8).reshape(-1, 2)
    out[:, 2:4] = dmin.astype(np.float16).view(np.uint8).reshape(-1, 2)
    out[:, 4:8] = sc[:, :4] | (sc[:, 4:] >> 4) << 6
    out[:, 8:12] = mn[:, :4] | (mn[:, 4:] >> 4) << 6
    out[:, 12:16] = (sc[:, 4:] & 15) | (mn[:, 4:] & 15) << 4
    pair = q.reshape(-1, 4, 2, 32)  # 64 columns: the low nibbles are the first 32, the high ones the second
    out[:, 16:] = (pair[:, :, 0] | pair[:, :, 1] << 4).reshape(-1, 128)
    return out.tobytes()


def dequantize_q4_k(data):
    b = np.frombuffer(data, np.uint8).reshape(-1, 144)
    d = b[:, 0:2].copy().view(np.float16).astype(np.float64)
    dmin = b[:, 2:4].copy().view(np.float16).astype(np.float64)
    sc = np.concatenate([b[:, 4:8] & 63, (b[:, 12:16] & 15) | (b[:, 4:8] >> 6) << 4], axis=1)
    mn = np.concatenate([b[:, 8:12] & 63, (b[:, 12:16] >> 4) | (b[:, 8:12] >> 6) << 4], axis=1)
    qs = b[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([qs & 15, qs >> 4], axis=2).reshape(-1, 8, 32)
    return ((d * sc)[..., None] * q - (dmin * mn)[..., None]).reshape(-1)


def quantize_q6_k(rows):
    """rows[N, K] of floats, K a multiple of 256 -> bytes, row after row."""
    x = np.asarray(rows, np.float64).reshape(-1, 16, 16)
    w = _importance(x)
    top = np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)[..., 0]  # with its sign
    best_e, best_s = np.full(top.shape, np.inf), np.zeros_like(top)
    for steps in np.arange(
        -33.5, -29.9, 0.25
    ):  # -32 is a value and 32 is none: the largest weight goes to the negative end
        inv = np.divide(steps, top, out=np.zeros_like(top), where=top != 0)
        q = np.clip(np.rint(x * inv[..., None]), -32, 31)
        qq = (w * q * q).sum(axis=-1)
        s = np.divide((w * q * x).sum(axis=-1), qq, out=np.zeros_like(qq), where=qq > 0)
        e = (w * (s[..., None] * q - x) ** 2).sum(axis=-1)
        take = e < best_e
        best_e, best_s = np.where(take, e, best_e), np.where(take, s, best_s)
    peak = np.take_along_axis(best_s, np.abs(best_s).argmax(axis=-1)[:, None], axis=-1)[:, 0]
    d = _f16(peak / -128)
    sc0 = np.clip(
        np.rint(np.divide(best_s, d[:, None], out=np.zeros_like(best_s), where=d[:, None] != 0)), -128, 127
    )
    best_e, sc, q = np.full(sc0.shape, np.inf), np.zeros_like(sc0), np.zeros_like(x)
    for ds in (0, -1, 1):
        a = np.clip(sc0 + ds, -128, 127)
        step = (d[:, None] * a)[..., None]
        t = np.clip(np.rint(np.divide(x, step, out=np.zeros_like(x), where=step != 0)), -32, 31)
        e = (w * (step * t - x) ** 2).sum(axis=-1)
        take = e < best_e
        best_e, sc, q = np.where(take, e, best_e), np.where(take, a, sc), np.where(take[..., None], t, q)
    u = (q + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # two halves of 128 columns, each four runs of 32
    out = np.zeros((len(x), 210), np.uint8)
    low = np.stack(
        [(u[:, :, 0] & 15) | (u[:, :, 2] & 15) << 4, (u[:, :, 1] & 15) | (u[:, :, 3] & 15) << 4], axis=2
    )
    out[:, :128] = low.reshape(-1, 128)
    h = u >> 4
    out[:, 128:192] = (h[:, :, 0] | h[:, :, 1] << 2 | h[:, :, 2] << 4 | h[:, :, 3] << 6).reshape(-1, 64)
    out[:, 192:208] = sc.astype(np.int8).view(np.uint8)
    out[:, 208:210] = d.astype(np.float16).view(np.uint8).reshape(-1, 2)
    return out.tobytes()


def dequantize_q6_k(data):
    b = np.frombuffer(data, np.uint8).reshape(-1, 210)
    low = b[:, :128].reshape(-1, 2, 2, 32)
    high = b[:, 128:192].reshape(-1, 2, 1, 32)
    q = (
        np.concatenate([low & 15, low >> 4], axis=2)
        | (np.concatenate([high, high >> 2, high >> 4, high >> 6], axis=2) & 3) << 4
    )
    d = b[:, 208:210].copy().view(np.float16).astype(np.float64)
    sc = b[:, 192:208].copy().view(np.int8).astype(np.float64)
    return ((d * sc)[..., None] * (q.reshape(-1, 16, 16).astype(np.float64) - 32)).reshape(-1)
