"""Texts to token ids, as the model's own tokenizer.json says, but for its padding and truncation.

Published files may pad every text to a fixed length (all-MiniLM-L6-v2: 128); that is switched off. Lengths
are grouped in buckets instead, so that a text of 20 tokens costs what 32 cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models.bert_config import position_limit
from mpc_ray.models.folder import Layout, read_json, read_layout

FILE = "tokenizer.json"
BUCKETS = (16, 32, 64, 128, 256, 512)
BATCH_TOKENS = 512  # padded tokens in one job: bounds a party's memory


@dataclass(frozen=True)
class Limits:
    """What a tokenizer must know of its model: positions, the length truncation cuts to, ids, and lower case."""

    max_positions: int
    max_tokens: int
    vocab: int
    lower_case: bool


class Tokenizer:
    """The tokenizer of a model folder, or of any folder with a tokenizer.json where ``limits`` are given.

    ``max_positions`` is the longest sequence the model can take, ``max_tokens`` the length that truncation
    cuts to (sentence-transformers' max_seq_length where the folder has one). Both count special tokens.
    ``prefix`` and ``suffix`` are the special ids around every text.

    Raises ModelError if the folder has neither tokenizer.json nor vocab.txt, or one that cannot be read.
    """

    def __init__(self, folder: str | Path, limits: Limits | None = None) -> None:
        if limits is None:
            layout = read_layout(folder)
            most = position_limit(layout.config)
            cut = min(layout.max_tokens or most, most)
            limits = Limits(most, cut, int(layout.config["vocab_size"]), layout.lower_case)
            self._fast = _open(layout)
        else:
            self._fast = _read(Path(folder) / FILE)
        self.limits = limits
        self.max_positions, self.max_tokens = limits.max_positions, limits.max_tokens
        self._fast.no_padding()
        self._fast.no_truncation()
        self.prefix, self.suffix = _frame(self._fast)

    def save(self, folder: Path) -> None:
        """Write it as ``folder``/tokenizer.json, which with ``limits`` is all that is needed to read it again."""
        self._fast.save(str(folder / FILE))

    def encode(
        self, texts: Sequence[str], *, truncate: bool = False, limit: int | None = None
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, of varied lengths, not padded.

        ``truncate=True`` cuts a long text to ``max_tokens`` and keeps its closing special tokens; otherwise a
        text longer than ``max_positions`` is an error (one between the two limits is taken whole). ``limit``
        replaces the length that applies. Errors name the index of the text and never quote it.

        Raises InputError: no list of str, an empty text, a text too long, invalid Unicode. Raises ModelError
        if an id is outside the model's vocabulary.
        """
        if isinstance(texts, str | bytes):
            raise InputError("texts is a single string", remedy="pass a list: [text]")
        cleaned = [self._clean(index, text) for index, text in enumerate(texts)]
        encodings = self._fast.encode_batch_fast(cleaned)
        most = limit or (self.max_tokens if truncate else self.max_positions)
        return [self._fit(index, encoding.ids, truncate, most) for index, encoding in enumerate(encodings)]

    def take(
        self, rows: Sequence[Sequence[int]], *, truncate: bool = False, limit: int | None = None
    ) -> list[list[int]]:
        """Token ids made elsewhere by this tokenizer, special tokens included, checked and cut as ``encode`` does.

        Raises InputError: no whole number, an id outside the vocabulary, none or too many.
        """
        most = limit or (self.max_tokens if truncate else self.max_positions)
        taken = []
        for index, row in enumerate(rows):
            ids = [token if type(token) is int else -1 for token in row]
            if not ids or min(ids) < 0 or max(ids) >= self.limits.vocab:
                raise InputError(
                    f"text {index} is no list of token ids from 0 to {self.limits.vocab - 1}",
                    remedy="use the model's own tokenizer, special tokens included",
                )
            taken.append(self._cut(index, ids, truncate, most))
        return taken

    def pieces(self, text: str, *, special: bool = True) -> list[tuple[int, str, bool, int, int]]:
        """The tokens of one text: id, piece, whether it is a special one, and its first and last place in the text.

        Raises InputError for an empty text.
        """
        encoding = self._fast.encode(self._clean(0, text), add_special_tokens=special)
        marks = map(bool, encoding.special_tokens_mask)
        return [
            (i, piece, mark, start, stop)
            for i, piece, mark, (start, stop) in zip(
                encoding.ids, encoding.tokens, marks, encoding.offsets, strict=True
            )
        ]

    def _clean(self, index: int, text: object) -> str:
        if not isinstance(text, str):
            raise InputError(f"text {index} is a {type(text).__name__}", remedy="texts must be str")
        try:
            text.encode()
        except UnicodeEncodeError:
            # The original error would quote the text.
            raise InputError(
                f"text {index} has a lone surrogate", remedy="decode it as UTF-8 first"
            ) from None
        stripped = text.strip()
        if not stripped:
            raise InputError(f"text {index} is empty", remedy="leave it out")
        return stripped.lower() if self.limits.lower_case else stripped

    def _fit(self, index: int, ids: list[int], truncate: bool, limit: int) -> list[int]:
        if len(ids) <= len(self.prefix) + len(self.suffix):
            raise InputError(
                f"text {index} has no tokens", remedy="it holds only control characters: leave it out"
            )
        ids = self._cut(index, ids, truncate, limit)
        if max(ids) >= self.limits.vocab:
            raise ModelError(
                f"the tokenizer gives id {max(ids)}, the model has {self.limits.vocab}",
                remedy="the tokenizer does not belong to this config.json",
            )
        return ids

    def _cut(self, index: int, ids: list[int], truncate: bool, limit: int) -> list[int]:
        if len(ids) > limit:
            if not truncate:
                raise InputError(
                    f"text {index} has {len(ids)} tokens, the model takes {limit}",
                    remedy="split it, or truncate=True",
                )
            return ids[: limit - len(self.suffix)] + list(self.suffix)
        return ids


def bucket(length: int, buckets: Sequence[int] = BUCKETS, *, limit: int | None = None) -> int:
    """The smallest bucket that holds ``length`` tokens, never above ``limit`` (the model's positions).

    Raises InputError if the length is below 1, or above every bucket and the limit.
    """
    if length >= 1 and (limit is None or length <= limit):
        fitting = [size for size in buckets if size >= length]
        if limit is not None:
            return min([*fitting, limit])
        if fitting:
            return min(fitting)
    top = max(buckets) if limit is None else limit
    raise InputError(f"no bucket for {length} tokens", remedy=f"lengths go from 1 to {top}")


def group_by_bucket(
    lengths: Iterable[int], buckets: Sequence[int] = BUCKETS, *, limit: int | None = None
) -> dict[int, list[int]]:
    """Indices of the texts in each bucket, smallest bucket first, in order inside. Raises as ``bucket``."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(bucket(length, buckets, limit=limit), []).append(index)
    return dict(sorted(groups.items()))


def batches(
    lengths: Iterable[int], buckets: Sequence[int], *, limit: int, tokens: int = BATCH_TOKENS
) -> list[tuple[int, list[int]]]:
    """(padded length, indices of the texts) of each job, shortest first: ``tokens`` padded tokens at most, or one text.

    Raises as ``bucket``.
    """
    jobs = []
    for length, members in group_by_bucket(lengths, buckets, limit=limit).items():
        size = max(1, tokens // length)
        jobs += [(length, members[start : start + size]) for start in range(0, len(members), size)]
    return jobs


def _open(layout: Layout) -> FastTokenizer:
    for folder in (layout.encoder, layout.root):
        path = folder / FILE
        if path.is_file():
            return _read(path)
    vocab = layout.encoder / "vocab.txt"
    if vocab.is_file():
        return _word_piece(vocab, layout.encoder)
    raise ModelError(
        f"no tokenizer.json in {layout.encoder}",
        remedy="copy it from the model, or save a fast tokenizer there",
    )


def _read(path: Path) -> FastTokenizer:
    try:
        return FastTokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise ModelError(
            f"{path} is no file of the tokenizers library: {_first_line(error)}",
            remedy="write one with tokenizer.save_pretrained(folder), or copy the model's own",
        ) from error


def _first_line(error: Exception) -> str:
    """The first line of a library's message, at most 80 characters of it."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 80 else line[:77] + "..."


def _word_piece(vocab: Path, folder: Path) -> FastTokenizer:
    """BERT's own tokenizer from vocab.txt, for folders older than tokenizer.json."""
    words = {word: index for index, word in enumerate(vocab.read_text(encoding="utf-8").splitlines())}
    missing = [word for word in ("[UNK]", "[CLS]", "[SEP]") if word not in words]
    if missing:
        raise ModelError(f"{vocab} lacks {missing[0]}", remedy="save a tokenizer.json for this model")
    settings = read_json(folder / "tokenizer_config.json") or {}
    fast = FastTokenizer(models.WordPiece(words, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", True)),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
    )
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    return fast


def _frame(fast: FastTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special ids before and after a text."""
    probe = fast.encode("a")
    body = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
    if not body:
        raise ModelError("the tokenizer gives no token for the letter a", remedy="copy tokenizer.json again")
    return tuple(probe.ids[: body[0]]), tuple(probe.ids[body[-1] + 1 :])
