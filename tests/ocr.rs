//! Real models of PaddlePaddle, of dynamic height and width: what onnxruntime computes, before the passes and after, and an
//! engine. Without the models, each test prints why and passes: `make ocr` gets them.

mod common;

use std::path::PathBuf;

use common::{assert_outputs, fetched, library};
use trt_fuse::import::{ImportOptions, import_file};
use trt_fuse::ir::Tensor;
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::{Options, build, optimize};

/// A model, its input in the reference, its ranges, and the most layers that its network may have, constants left out.
struct Case {
    name: &'static str,
    input: [usize; 4],
    ranges: &'static [&'static str],
    layers: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "ch_PP-OCRv4_det_infer",
        input: [2, 3, 64, 96],
        ranges: &[
            "p2o.DynamicDimension.0=1:1:2",
            "p2o.DynamicDimension.1=32:640:1280",
            "p2o.DynamicDimension.2=32:640:1280",
        ],
        layers: 230,
    },
    Case {
        name: "ch_PP-OCRv4_rec_infer",
        input: [1, 3, 48, 64],
        ranges: &["p2o.DynamicDimension.0=1:6:16", "x.2=48", "p2o.DynamicDimension.1=16:320:2048"],
        layers: 400,
    },
    Case {
        name: "ch_ppocr_mobile_v2.0_cls_infer",
        input: [2, 3, 48, 192],
        ranges: &["x.0=1:6:16", "x.2=48", "x.3=192"],
        layers: 190,
    },
];

fn path(case: &Case) -> Option<PathBuf> {
    fetched(&format!("rapidocr-1.4.4/{}.onnx", case.name), "ocr")
}

/// Dark strokes on a light ground, as scripts/ocr.py draws them.
fn bars([images, channels, height, width]: [usize; 4]) -> Tensor {
    let mut elements = Vec::new();
    for image in 0..images {
        for row in (0..channels).flat_map(|_| 0..height) {
            elements.extend((0..width).map(|column| {
                let inside = (20..44).contains(&row) && (8..width - 8).contains(&column);
                let is_row = image == 0 && row >= 20 && (row - 20) % 10 < 3 && (column / 16) % 2 == 0;
                if inside && (column % 16 < 3 || is_row) { -2.0_f32 } else { 2.0 }
            }));
        }
    }
    Tensor::from_vec([images, channels, height, width], elements).unwrap()
}

#[test]
fn outputs_are_those_of_onnxruntime() {
    for case in CASES {
        let Some(path) = path(case) else { return };
        let model = import_file(&path, &ImportOptions::default()).unwrap();
        let reference = format!("ocr_{}", case.name);
        assert_outputs(&reference, &eval_graph(&model.graph, &[bars(case.input)]).unwrap());
        let graph = optimize(model, &Options::default()).unwrap().graph;
        assert_outputs(&reference, &eval_graph(&graph, &[bars(case.input)]).unwrap());
    }
}

#[test]
fn all_become_engines() {
    let Some(library) = library() else { return };
    for case in CASES {
        let Some(path) = path(case) else { return };
        let ranges = case.ranges.iter().map(|range| range.parse().unwrap()).collect();
        let options = Options { ranges, ..Options::default() };
        let graph = optimize(import_file(&path, &options.import).unwrap(), &options).unwrap().graph;
        let built = build(&graph, &library, &options, None).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let layers = built.layers.without_constants;
        println!("{}: {layers} layers, {} in the engine", case.name, built.plan.layers().len());
        assert!(layers <= case.layers, "{}: {layers} layers, {} are the most", case.name, case.layers);
    }
}
