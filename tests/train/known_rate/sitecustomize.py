"""For programs that tests start: the machine's rate is given, as measuring it outlasts a run."""

import importlib.abc
import importlib.util
import sys


class _KnownRate(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "bertjax.training.metrics":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_replace(module):
            execute(module)
            module.measure_matmul_rate = lambda *_: 1e9

        spec.loader.exec_module = execute_and_replace
        return spec


sys.meta_path.insert(0, _KnownRate())
