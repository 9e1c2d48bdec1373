//! The table of single operators that `scripts/operators.py` wrote with onnxruntime.

use super::*;

/// Element `i` of input `k`, as the script makes it.
fn pattern(input: usize, index: usize) -> f32 {
    let number = (1000 * input + index) as f64 * 1_103_515_245.0 + 12345.0;
    (number.rem_euclid(2_f64.powi(31)) / 2_f64.powi(29) - 2.0) as f32
}

fn dims(text: &str) -> Vec<usize> {
    let inner = text.trim_start_matches(|c| c != '[').trim_matches(['[', ']']);
    inner.split(", ").map(|dim| dim.parse().unwrap()).collect()
}

fn input(at: usize, text: &str) -> Tensor {
    let dims = dims(text);
    let elements = (0..dims.iter().product()).map(|index| pattern(at, index));
    if text.starts_with("bool") {
        Tensor::from_vec(&dims, elements.map(|x| x > -0.5).collect()).unwrap()
    } else {
        Tensor::from_vec(&dims, elements.collect()).unwrap()
    }
}

#[test]
fn operators_equal_onnxruntime() {
    let table = include_str!("../../../testdata/operators.tsv");
    assert_eq!(table.lines().count(), 50);
    for line in table.lines() {
        let [node, inputs, shape, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let inputs: Vec<Tensor> = inputs.split(';').enumerate().map(|(at, text)| input(at, text)).collect();
        let found = eval(node, &inputs.iter().collect::<Vec<_>>());
        assert_eq!(found.dims(), dims(shape), "{node}");
        for (at, (found, expected)) in found.to_f64s().unwrap().iter().zip(expected.split(' ')).enumerate() {
            let expected: f64 = expected.parse().unwrap();
            assert!((found - expected).abs() <= 2e-5, "{node}: element {at} is {found}, {expected} was expected");
        }
    }
}
