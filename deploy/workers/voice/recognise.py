# Recognises speech for the voice worker. One request at a time on standard input: four bytes of length
# (big-endian), then that many bytes of raw 16-bit mono audio at 16 kHz; length 0 ends the utterance. Each
# request is answered by one JSON line: {"text": ..., "confidence": ...}, text null when nothing was heard.
import json
import sys

import pocketsphinx


def exactly(count):
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        sys.exit(0)
    return data


def confidence(decoder):
    # The mean posterior of the words; silence and noises do not count.
    words = [seg.prob for seg in decoder.seg() or () if seg.word[0] not in "<["]
    return round(min(1.0, sum(words) / len(words)), 3) if words else 0.0


def heard(decoder, final):
    hypothesis = decoder.hyp()
    text = hypothesis.hypstr if hypothesis else None
    certainty = confidence(decoder) if text and final else (0.5 if text else 0.0)
    print(json.dumps({"text": text or None, "confidence": certainty}), flush=True)


def main():
    decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL")
    print(json.dumps({"text": None, "confidence": 0.0}), flush=True)
    talking = False
    while True:
        length = int.from_bytes(exactly(4), "big")
        if not talking:
            decoder.start_utt()
            talking = True
        if length:
            decoder.process_raw(exactly(length))
            heard(decoder, False)
        else:
            decoder.end_utt()
            talking = False
            heard(decoder, True)


main()
