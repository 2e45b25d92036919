"""The literature that fpsim rests on, a BibTeX entry each. Names, years and numbers; no abstract, no address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """kind : of BibTeX, ``article``;  fields : name -> value in BibTeX's own notation, in the order that is printed."""

    kind: str
    fields: Mapping[str, str]


def _article(author: str, title: str, journal: str, year: int, **more: str) -> Entry:
    return Entry("article", {"author": author, "title": title, "journal": journal, "year": str(year), **more})


def _paper(author: str, title: str, booktitle: str, year: int, **more: str) -> Entry:
    return Entry("inproceedings", {"author": author, "title": title, "booktitle": booktitle, "year": str(year), **more})


def _arxiv(author: str, title: str, eprint: str, year: int) -> Entry:
    return Entry("misc", {"author": author, "title": title, "year": str(year), **arxiv(eprint)})


def _misc(author: str, title: str, howpublished: str, year: int, **more: str) -> Entry:
    return Entry("misc", {"author": author, "title": title, "howpublished": howpublished, "year": str(year), **more})


def arxiv(eprint: str) -> dict[str, str]:
    return {"eprint": eprint, "archiveprefix": "arXiv"}


_ICML, _ICLR = "International Conference on Machine Learning", "International Conference on Learning Representations"
_NEURIPS = "Advances in Neural Information Processing Systems"

FORMATS = {
    "ieee754": _misc(
        "{IEEE}", "{IEEE} Standard for Floating-Point Arithmetic", "IEEE Std 754-2019", 2019,
        doi="10.1109/IEEESTD.2019.8766229",
    ),
    "bfloat16": _arxiv(
        "Kalamkar, Dhiraj and Mudigere, Dheevatsa and Mellempudi, Naveen and Das, Dipankar and Banerjee, Kunal and "
        "Avancha, Sasikanth and others",
        "A study of {BFLOAT16} for deep learning training", "1905.12322", 2019,
    ),
    "tf32": _article(
        "Choquette, Jack and Gandhi, Wishwesh and Giroux, Olivier and Stam, Nick and Krashinsky, Ronny",
        "{NVIDIA} {A100} Tensor Core {GPU}: performance and innovation", "IEEE Micro", 2021,
        volume="41", number="2", pages="29--35",
    ),
    "fp8": _arxiv(
        "Micikevicius, Paulius and Stosic, Dusan and Burgess, Neil and Cornea, Marius and Dubey, Pradeep and "
        "Grisenthwaite, Richard and others",
        "{FP8} formats for deep learning", "2209.05433", 2022,
    ),
    "fnuz": _arxiv(
        "Noune, Badreddine and Jones, Philip and Justus, Daniel and Masters, Dominic and Luschi, Carlo",
        "8-bit numerical formats for deep neural networks", "2206.02915", 2022,
    ),
    "mx": _arxiv(
        "Rouhani, Bita Darvish and Zhao, Ritchie and More, Ankit and Hall, Mathew and others",
        "Microscaling data formats for deep learning", "2310.10537", 2023,
    ),
    "microexponents": _paper(
        "Rouhani, Bita and Zhao, Ritchie and Elango, Venmugil and Shafipour, Rasoul and Hall, Mathew and others",
        "With shared microexponents, a little shifting goes a long way",
        "International Symposium on Computer Architecture (ISCA)", 2023, **arxiv("2302.08007"),
    ),
    "p3109": Entry(
        "misc",
        {
            "author": "{IEEE Working Group P3109}",
            "title": "Interim report on binary floating-point formats for machine learning",
            "howpublished": "Version 4.0",
        },
    ),
}  # fmt: skip

MODES = {
    "boldo2008": _article(
        "Boldo, Sylvie and Melquiond, Guillaume",
        "Emulation of a {FMA} and correctly rounded sums: proved algorithms using rounding to odd",
        "IEEE Transactions on Computers", 2008, volume="57", number="4", pages="462--471",
        doi="10.1109/TC.2007.70819",
    ),
    "croci2022": _article(
        r"Croci, Matteo and Fasi, Massimiliano and Higham, Nicholas J. and Mary, Theo and Mikaitis, Mantas",
        "Stochastic rounding: implementation, error analysis and applications", "Royal Society Open Science", 2022,
        volume="9", number="3", pages="211631", doi="10.1098/rsos.211631",
    ),
}  # fmt: skip

OPTIMIZERS = {
    "robbins1951": _article(
        "Robbins, Herbert and Monro, Sutton", "A stochastic approximation method",
        "The Annals of Mathematical Statistics", 1951, volume="22", number="3", pages="400--407",
    ),
    "polyak1964": _article(
        "Polyak, Boris T.", "Some methods of speeding up the convergence of iteration methods",
        "USSR Computational Mathematics and Mathematical Physics", 1964, volume="4", number="5", pages="1--17",
    ),
    "nesterov1983": _article(
        "Nesterov, Yurii", "A method for solving the convex programming problem with convergence rate {$O(1/k^2)$}",
        "Soviet Mathematics Doklady", 1983, volume="27", number="2", pages="372--376",
    ),
    "sutskever2013": _paper(
        "Sutskever, Ilya and Martens, James and Dahl, George and Hinton, Geoffrey",
        "On the importance of initialization and momentum in deep learning", _ICML, 2013,
    ),
    "bernstein2018": _paper(
        "Bernstein, Jeremy and Wang, Yu-Xiang and Azizzadenesheli, Kamyar and Anandkumar, Animashree",
        "{signSGD}: compressed optimisation for non-convex problems", _ICML, 2018, **arxiv("1802.04434"),
    ),
    "chen2023": _paper(
        "Chen, Xiangning and Liang, Chen and Huang, Da and Real, Esteban and Wang, Kaiyuan and others",
        "Symbolic discovery of optimization algorithms", _NEURIPS, 2023, **arxiv("2302.06675"),
    ),
    "duchi2011": _article(
        "Duchi, John and Hazan, Elad and Singer, Yoram",
        "Adaptive subgradient methods for online learning and stochastic optimization",
        "Journal of Machine Learning Research", 2011, volume="12", pages="2121--2159",
    ),
    "tieleman2012": _misc(
        "Tieleman, Tijmen and Hinton, Geoffrey", "Lecture 6.5 -- {RMSprop}",
        "Coursera: Neural Networks for Machine Learning", 2012,
    ),
    "graves2013": _arxiv("Graves, Alex", "Generating sequences with recurrent neural networks", "1308.0850", 2013),
    "kingma2015": _paper(
        "Kingma, Diederik P. and Ba, Jimmy", "Adam: a method for stochastic optimization", _ICLR, 2015,
        **arxiv("1412.6980"),
    ),
    "loshchilov2019": _paper(
        "Loshchilov, Ilya and Hutter, Frank", "Decoupled weight decay regularization", _ICLR, 2019,
        **arxiv("1711.05101"),
    ),
    "reddi2018": _paper(
        "Reddi, Sashank J. and Kale, Satyen and Kumar, Sanjiv", "On the convergence of {Adam} and beyond", _ICLR, 2018,
    ),
    "dozat2016": _paper(
        "Dozat, Timothy", "Incorporating {Nesterov} momentum into {Adam}", f"{_ICLR}, workshop track", 2016,
    ),
    "shazeer2018": _paper(
        "Shazeer, Noam and Stern, Mitchell", "Adafactor: adaptive learning rates with sublinear memory cost", _ICML,
        2018, **arxiv("1804.04235"),
    ),
    "jordan2024": _misc(
        "Jordan, Keller and Jin, Yuchen and Boza, Vlado and You, Jiacheng and Cesista, Franz and Newhouse, Laker and "
        "Bernstein, Jeremy",
        "{Muon}: an optimizer for hidden layers in neural networks", "Blog post", 2024,
    ),
    "bernstein2024": _arxiv(
        "Bernstein, Jeremy and Newhouse, Laker", "Old optimizer, new norm: an anthology", "2409.20325", 2024,
    ),
    "gupta2018": _paper(
        "Gupta, Vineet and Koren, Tomer and Singer, Yoram", "Shampoo: preconditioned stochastic tensor optimization",
        _ICML, 2018, **arxiv("1802.09568"),
    ),
    "shi2023": _arxiv(
        "Shi, Hao-Jun Michael and Lee, Tsung-Hsien and Iwasaki, Shintaro and Gallego-Posada, Jose and Li, Zhijing and "
        "Rangadurai, Kaushik and Mudigere, Dheevatsa and Rabbat, Michael",
        "A distributed data-parallel {PyTorch} implementation of the distributed {Shampoo} optimizer for training "
        "neural networks at-scale",
        "2309.06497", 2023,
    ),
    "vyas2025": _paper(
        "Vyas, Nikhil and Morwani, Depen and Zhao, Rosie and Kwun, Mujin and Shapira, Itai and Brandfonbrener, David "
        "and Janson, Lucas and Kakade, Sham",
        "{SOAP}: improving and stabilizing {Shampoo} using {Adam}", _ICLR, 2025, **arxiv("2409.11321"),
    ),
    "pethick2025": _paper(
        "Pethick, Thomas and Xie, Wanyun and Antonakopoulos, Kimon and Zhu, Zhenyu and Silveti-Falls, Antonio and "
        "Cevher, Volkan",
        "Training deep learning models with norm-constrained {LMO}s", _ICML, 2025, pages="49069--49104",
        **arxiv("2502.07529"),
    ),
    "li2018": _article(
        "Li, Xi-Lin", "Preconditioned stochastic gradient descent",
        "IEEE Transactions on Neural Networks and Learning Systems", 2018, volume="29", **arxiv("1512.04202"),
    ),
    "pooladzandi2024": _arxiv(
        "Pooladzandi, Omead and Li, Xi-Lin", "Curvature-informed {SGD} via general purpose {Lie}-group preconditioners",
        "2402.04553", 2024,
    ),
}  # fmt: skip

THEOREMS = {
    "defossez2022": _article(
        r"D{\'e}fossez, Alexandre and Bottou, L{\'e}on and Bach, Francis and Usunier, Nicolas",
        "A simple convergence proof of {Adam} and {Adagrad}", "Transactions on Machine Learning Research", 2022,
        **arxiv("2003.02395"),
    ),
    "tang2025": _arxiv(
        "Tang, Xuan and Li, Jichu and Zou, Difan",
        "A convergence analysis of adaptive optimizers under floating-point quantization", "2510.21314", 2025,
    ),
    "xia2022": _arxiv(
        "Xia, Lu and Massei, Stefano and Hochstenbach, Michiel E. and Koren, Barry",
        "On the influence of stochastic roundoff errors and their bias on the convergence of the gradient descent "
        "method with low-precision floating-point computation",
        "2202.12276", 2022,
    ),
    "zamirai2020": _arxiv(
        "Zamirai, Pedram and Zhang, Jian and Aberger, Christopher R. and De Sa, Christopher",
        "Revisiting {BFloat16} training", "2010.06192", 2020,
    ),
    "li2017": _paper(
        "Li, Hao and De, Soham and Xu, Zheng and Studer, Christoph and Samet, Hanan and Goldstein, Tom",
        "Training quantized nets: a deeper understanding", _NEURIPS, 2017, **arxiv("1706.02379"),
    ),
    "widrow2008": Entry(
        "book",
        {
            "author": r"Widrow, Bernard and Koll{\'a}r, Istv{\'a}n",
            "title": "Quantization Noise: Roundoff Error in Digital Computation, Signal Processing, Control, and "
            "Communications",
            "publisher": "Cambridge University Press",
            "year": "2008",
        },
    ),
    "wilkinson1986": _article(
        "Wilkinson, James H.", "Error analysis revisited", "IMA Bulletin", 1986, volume="22", pages="192--200",
    ),
    "yang2016": _arxiv(
        "Yang, Tianbao and Lin, Qihang and Li, Zhe",
        "Unified convergence analysis of stochastic momentum methods for convex and non-convex optimization",
        "1604.03257", 2016,
    ),
    "grassmann1985": _article(
        "Grassmann, Winfried K. and Taksar, Michael I. and Heyman, Daniel P.",
        "Regenerative analysis and steady state distributions for {Markov} chains", "Operations Research", 1985,
        volume="33", number="5", pages="1107--1116",
    ),
    "hoeffding1963": _article(
        "Hoeffding, Wassily", "Probability inequalities for sums of bounded random variables",
        "Journal of the American Statistical Association", 1963, volume="58", number="301", pages="13--30",
    ),
    "ville1939": Entry(
        "book",
        {
            "author": "Ville, Jean",
            "title": r"{\'E}tude critique de la notion de collectif",
            "publisher": "Gauthier-Villars",
            "year": "1939",
        },
    ),
    "howard2021": _article(
        "Howard, Steven R. and Ramdas, Aaditya and McAuliffe, Jon and Sekhon, Jasjeet",
        "Time-uniform, nonparametric, nonasymptotic confidence sequences", "The Annals of Statistics", 2021,
        volume="49", number="2", pages="1055--1080", **arxiv("1810.08240"),
    ),
}  # fmt: skip

ENTRIES: dict[str, Entry] = {**FORMATS, **MODES, **OPTIMIZERS, **THEOREMS}
