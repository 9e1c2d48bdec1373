#!/usr/bin/env python3
"""Write ONNX's own tests, as the `onnx` package has them, to a folder.

    python3 scripts/operator_tests.py FOLDER

FOLDER/node gets one folder an operator test, FOLDER/simple, FOLDER/pytorch-converted and FOLDER/pytorch-operator those that
the package ships as files: NAME/model.onnx and NAME/test_data_set_0/{input,output}_N.pb. Values that are no tensors are
left out.
"""
import pathlib
import shutil
import sys

import numpy
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

SHIPPED = ("simple", "pytorch-converted", "pytorch-operator")


def write(case, folder):
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    inputs, outputs = case.data_sets[0]
    for kind, values, stated in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
        for number, (value, info) in enumerate(zip(values, stated)):
            if not info.type.HasField("tensor_type"):
                continue
            if not isinstance(value, TensorProto):
                value = numpy_helper.from_array(numpy.asarray(value), info.name)
            (data / f"{kind}_{number}.pb").write_bytes(value.SerializeToString())


def main(root):
    numpy.random.seed(0)
    for case in collect_testcases():
        write(case, root / "node" / case.name)
    shipped = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"
    for folder in SHIPPED:
        shutil.copytree(shipped / folder, root / folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
