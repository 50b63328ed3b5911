"""Runs all tests, measures which lines of the shop ran, and writes both down: JUnit XML and LCOV."""

import os
import sys
import threading
import time
import types
import unittest
from xml.sax.saxutils import escape, quoteattr

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHOP = os.path.join(ROOT, "shop") + os.sep
sys.path.insert(0, ROOT)
ran = {}


def trace(frame, event, _):
    path = frame.f_code.co_filename
    if not path.startswith(SHOP):
        return None
    if event == "line":
        lines = ran.setdefault(path, {})
        lines[frame.f_lineno] = lines.get(frame.f_lineno, 0) + 1
    return trace


def says(error):
    lines = str(error[1]).splitlines() or ["no words"]
    return f"{error[0].__name__}: {lines[0]}"


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.cases, self.began = [], 0.0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.perf_counter()

    def add(self, test, words=None):
        self.cases.append((test.id(), time.perf_counter() - self.began, words))

    def addSuccess(self, test):
        self.add(test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.add(test, (says(error), self.failures[-1][1]))

    def addError(self, test, error):
        super().addError(test, error)
        self.add(test, (says(error), self.errors[-1][1]))


def junit(cases):
    out = ['<?xml version="1.0"?>', f'<testsuite name="shop" tests="{len(cases)}">']
    for name, took, words in cases:
        group, _, case = name.rpartition(".")
        head = f'<testcase classname={quoteattr(group)} name={quoteattr(case)} time="{took:.4f}"'
        if words is None:
            out.append(head + "/>")
        else:
            message, whole = words
            out.append(f"{head}><failure message={quoteattr(message)}>{escape(whole)}</failure></testcase>")
            print(f"FAILED {name}\n{whole}")
    return "\n".join(out + ["</testsuite>", ""])


def lines_of(code):
    for _, _, line in code.co_lines():
        if line:
            yield line
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from lines_of(inner)


def lcov():
    out = []
    for name in sorted(os.listdir(SHOP)):
        path = os.path.join(SHOP, name)
        if not name.endswith(".py"):
            continue
        with open(path) as source:
            lines = sorted(set(lines_of(compile(source.read(), path, "exec"))))
        hits = ran.get(path, {})
        out += [f"SF:shop/{name}"] + [f"DA:{line},{hits.get(line, 0)}" for line in lines] + ["end_of_record"]
    return "\n".join(out + [""])


def main():
    threading.settrace(trace)
    sys.settrace(trace)
    tests = unittest.defaultTestLoader.discover(os.path.join(ROOT, "tests"), top_level_dir=ROOT)
    result = Result()
    tests.run(result)
    sys.settrace(None)
    threading.settrace(None)
    reports = os.path.join(ROOT, "reports")
    os.makedirs(reports, exist_ok=True)
    for name, text in (("unit.xml", junit(result.cases)), ("cov.lcov", lcov())):
        with open(os.path.join(reports, name), "w") as out:
            out.write(text)
    print(f"{result.testsRun} tests, {len(result.failures) + len(result.errors)} red")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
