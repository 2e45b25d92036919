"""What to cite for a format, rounding mode, optimizer or theorem: keys of ``entries``, or nothing, with the reason."""

from __future__ import annotations

import re

FPSIM = "fpsim"  # the entry of the package itself, which knows its version

# Nothing was published that defines it; the comment says what it is.
NONE: tuple[str, ...] = ()

FORMATS: dict[str, tuple[str, ...]] = {
    "binary16": ("ieee754",),
    "binary32": ("ieee754",),
    "binary64": ("ieee754",),
    "bfloat16": ("bfloat16",),
    "tf32": ("tf32",),
    "float8_e4m3fn": ("fp8",),
    "float8_e5m2": ("fp8",),
    "float8_e4m3fnuz": ("fnuz",),
    "float8_e5m2fnuz": ("fnuz",),
    "float8_e4m3b11fnuz": NONE,  # defined by compilers and libraries only
    "float8_e3m4": NONE,  # IEEE-like, defined by compilers and libraries only
    "float6_e2m3fn": ("mx",),
    "float6_e3m2fn": ("mx",),
    "float4_e2m1fn": ("mx",),
    "float8_e8m0fnu": ("mx",),
    "mxfp8_e4m3": ("mx", "fp8"),
    "mxfp8_e5m2": ("mx", "fp8"),
    "mxfp6_e3m2": ("mx",),
    "mxfp6_e2m3": ("mx",),
    "mxfp4_e2m1": ("mx",),
    "mxint8": ("mx",),
    "mx4": ("microexponents",),
    "mx6": ("microexponents",),
    "mx9": ("microexponents",),
}

MODES: dict[str, tuple[str, ...]] = {
    "nearest_even": ("ieee754",),
    "nearest_away": ("ieee754",),
    "toward_zero": ("ieee754",),
    "up": ("ieee754",),
    "down": ("ieee754",),
    "to_odd": ("boldo2008",),
    "stochastic": ("croci2022", "p3109"),
}

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd": ("robbins1951",),
    "momentum": ("polyak1964",),
    "heavy_ball": ("polyak1964",),
    "nesterov": ("nesterov1983", "sutskever2013"),
    "sign_sgd": ("bernstein2018",),
    "signum": ("bernstein2018",),
    "lion": ("chen2023",),
    "adagrad": ("duchi2011",),
    "rmsprop": ("tieleman2012",),
    "rmsprop_centered": ("tieleman2012", "graves2013"),
    "adam": ("kingma2015",),
    "adam_sums": ("kingma2015", "defossez2022", "tang2025"),
    "adamw": ("loshchilov2019",),
    "amsgrad": ("reddi2018",),
    "nadam": ("dozat2016",),
    "adafactor": ("shazeer2018",),
    "adafactor_vector": ("shazeer2018",),
    "muon": ("jordan2024", "bernstein2024"),
    "muon_polar": ("jordan2024", "bernstein2024"),
    "shampoo": ("gupta2018", "shi2023"),
    "soap": ("vyas2025",),
    "scion": ("pethick2025",),
    "scion_sign": ("pethick2025",),
    "scion_column": ("pethick2025",),
    "scion_row": ("pethick2025",),
    "kron": ("li2018", "pooladzandi2024"),
}

# "derived here" is fpsim; beside it what a derivation takes from, or is held against.
THEOREMS: dict[str, tuple[str, ...]] = {
    "T1": (FPSIM,),
    "T2": (FPSIM,),
    "T3": (FPSIM, "wilkinson1986"),
    "T4": (FPSIM,),
    "T5": (FPSIM, "tang2025"),
    "T6": (FPSIM, "xia2022", "zamirai2020"),
    "T7": (FPSIM, "grassmann1985"),
    "T8": (FPSIM, "li2017"),
    "T9": (FPSIM, "widrow2008"),
    "T10": (FPSIM,),
    "T11": (FPSIM, "defossez2022"),
    "T12": (FPSIM, "defossez2022"),
    "T14": (FPSIM,),
    "T15": (FPSIM,),
    "T16": (FPSIM, "xia2022", "zamirai2020"),
    "T18": (FPSIM,),
    "T20": (FPSIM,),
    "T21": (FPSIM, "yang2016"),
    "T22": (FPSIM,),
    "T23": (FPSIM,),
    "T24": (FPSIM,),
    "T25": (FPSIM, "widrow2008"),
    "T26": (FPSIM,),
    "T27": (FPSIM, "tang2025"),
    "T28": (FPSIM, "hoeffding1963", "ville1939", "howard2021"),
    "T29": (FPSIM, "hoeffding1963", "ville1939", "howard2021"),
    "X1": ("defossez2022",),
    "X2": ("tang2025",),
}

_STOCHASTIC = re.compile(r"stochastic(\d+)?[ABC]?")


def of_format(name: str) -> tuple[str, ...]:
    """Keys for a format by any name that fpsim knows; an ``eXmY`` that has a name of its own is cited as that.

    Raises
    ------
    ValueError
        ``name`` is neither a format nor a block format; one line that names close ones.

    Examples
    --------
    >>> of_format("e8m7"), of_format("e4m7"), of_format("p3109_k8p4se")
    (('bfloat16',), ('ieee754',), ('p3109',))
    """
    from fpsim.block_formats import NAMED as BLOCKS
    from fpsim.formats import ALIASES, NAMED
    from fpsim.formats import format as named_format

    name = ALIASES.get(name, name)
    if name in FORMATS:
        return FORMATS[name]
    try:
        found = named_format(name)
    except ValueError as error:
        raise ValueError(f"{error}, {', '.join(BLOCKS)}") from None
    if name.startswith("p3109"):
        return ("p3109",)
    same = next((known for known, fmt in NAMED.items() if fmt == found), None)
    return FORMATS[same] if same is not None else ("ieee754",)  # of the standard's pattern, with other widths


def of_mode(name: str) -> tuple[str, ...]:
    """Keys for a rounding mode, such as ``stochastic16B``.

    Raises
    ------
    ValueError
        ``name`` is no rounding mode.
    """
    known = "stochastic" if _STOCHASTIC.fullmatch(name) else name
    if known not in MODES:
        raise ValueError(f"rounding={name!r}; admissible: {', '.join(MODES)}")
    return MODES[known]
