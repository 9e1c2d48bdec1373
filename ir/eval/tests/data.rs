use super::*;

#[test]
fn reshapes() {
    let x = counted(&[2, 3, 4]);
    let to = |shape: &[i64], rest: &str| {
        let shape = i64s(&[shape.len()], shape);
        try_eval(&format!("reshape(%0, %1) {rest}"), &[&x, &shape], &[&x, &shape]).map(|y| y.dims().to_vec())
    };
    assert_eq!(to(&[0, -1], ""), Ok(vec![2, 12]));
    assert_eq!(to(&[-1, 1, 6], ""), Ok(vec![4, 1, 6]));
    let empty = counted(&[0, 3]);
    let y = eval("reshape(%0, %1) allow_zero=true", &[&empty, &i64s(&[3], &[5, 0, 2])]);
    assert_eq!(y.dims(), [5, 0, 2]);
    let node = "reshape(%0, %1)";
    let good = i64s(&[2], &[6, 4]);
    for bad in [vec![-1, -1], vec![5, -1], vec![7, 4], vec![-2, 12]] {
        assert!(try_eval(node, &[&x, &good], &[&x, &i64s(&[2], &bad)]).is_err(), "{bad:?}");
    }
    assert_eq!(eval("flatten(%0) axis=-1", &[&x]).dims(), [6, 4]);
    assert_eq!(eval("flatten(%0) axis=3", &[&x]).dims(), [24, 1]);
    assert_eq!(eval("unsqueeze(%0) axes=[0, -1]", &[&x]).dims(), [1, 2, 3, 4, 1]);
    assert_eq!(eval("squeeze(%0)", &[&counted(&[1, 2, 1])]).dims(), [2]);
    assert!(try_eval("squeeze(%0) axes=[0]", &[&counted(&[1, 2])], &[&x]).is_err());
}

#[test]
fn transposes() {
    let y = eval("transpose(%0) perm=[2, 0, 1]", &[&counted(&[2, 3, 2])]);
    assert_is(&y, &[2, 2, 3], &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
    let x = counted(&[40, 70, 30]);
    let y = values(&eval("transpose(%0) perm=[1, 2, 0]", &[&x]));
    // y[j, k, i] = x[i, j, k]
    let expected = |at: usize| (at % 40 * 2100 + at / 1200 * 30 + at / 40 % 30) as f64;
    assert!(y.iter().enumerate().all(|(at, y)| *y == expected(at)));
    let bytes = Tensor::new(DType::F8E4M3, [2, 2], vec![1, 2, 3, 4].into()).unwrap();
    assert_eq!(eval("transpose(%0) perm=[1, 0]", &[&bytes]).bytes().as_ref(), [1, 3, 2, 4]);
}

#[test]
fn slices() {
    let x = counted(&[4, 5]);
    let cut = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let vector = |elements: &[i64]| i64s(&[elements.len()], elements);
        let inputs = [&x, &vector(starts), &vector(ends), &vector(axes), &vector(steps)];
        eval("slice(%0, %1, %2, %3, %4)", &inputs)
    };
    // x[3:0:-2, 1:4:2]
    assert_is(&cut(&[3, 1], &[0, 4], &[0, 1], &[-2, 2]), &[2, 2], &[16.0, 18.0, 6.0, 8.0]);
    // x[::-1, -2:]
    let y = cut(&[i64::MAX, -2], &[i64::MIN, i64::MAX], &[0, 1], &[-1, 1]);
    assert_is(&y, &[4, 2], &[18.0, 19.0, 13.0, 14.0, 8.0, 9.0, 3.0, 4.0]);
    assert_is(&cut(&[3], &[3], &[1], &[1]), &[4, 0], &[]);
    assert_is(&cut(&[9], &[10], &[1], &[1]), &[4, 0], &[]);
    // The canonical form's -1 is the place before the first element.
    let y = eval("slice(%0) axes=[0] starts=[3] ends=[-1] steps=[-3]", &[&x]);
    assert_is(&y, &[2, 5], &[15.0, 16.0, 17.0, 18.0, 19.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn padding_modes() {
    let x = counted(&[4]);
    let pad = |mode: &str, pads: [i64; 2]| eval(&format!("pad(%0, %1) mode={mode}"), &[&x, &i64s(&[2], &pads)]);
    // NumPy's pad.
    assert_is(&pad("reflect", [2, 5]), &[11], &[2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 1.0, 2.0]);
    assert_is(&pad("edge", [1, 2]), &[7], &[0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
    assert_is(&pad("wrap", [1, 5]), &[10], &[3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
    assert_is(&pad("constant", [-1, 2]), &[5], &[1.0, 2.0, 3.0, 0.0, 0.0]);
    assert_is(&pad("reflect", [-1, 1]), &[4], &[1.0, 2.0, 3.0, 2.0]);
    let node = "pad(%0, %1, %2, %3) mode=constant";
    let inputs = [&counted(&[1, 2]), &i64s(&[2], &[1, 0]), &f32s(&[], &[7.0]), &i64s(&[1], &[-1])];
    assert_is(&eval(node, &inputs), &[1, 3], &[7.0, 0.0, 1.0]);
    let few = i64s(&[2], &[-3, -3]);
    assert!(try_eval("pad(%0, %1) mode=edge", &[&x, &i64s(&[2], &[0, 0])], &[&x, &few]).is_err());
}

#[test]
fn joins_and_cuts() {
    let (a, b) = (counted(&[2, 1]), counted(&[2, 2]));
    assert_is(&eval("concat(%0, %1) axis=-1", &[&a, &b]), &[2, 3], &[0.0, 0.0, 1.0, 1.0, 2.0, 3.0]);
    assert!(try_eval("concat(%0, %1) axis=1", &[&a, &b], &[&a, &counted(&[3, 2])]).is_err());
    let parts = eval2("split(%0) axis=0", &[&counted(&[3, 2])]);
    assert_is(&parts[0], &[2, 2], &[0.0, 1.0, 2.0, 3.0]);
    assert_is(&parts[1], &[1, 2], &[4.0, 5.0]);
    let parts = eval2("split(%0) axis=1 sizes=[0, 2]", &[&counted(&[3, 2])]);
    assert_is(&parts[0], &[3, 0], &[]);
    assert_is(
        &eval("tile(%0, %1)", &[&counted(&[1, 2]), &i64s(&[2], &[2, 2])]),
        &[2, 4],
        &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
    );
    let y = eval("expand(%0, %1)", &[&counted(&[2, 1]), &i64s(&[3], &[2, 1, 2])]);
    assert_is(&y, &[2, 2, 2], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert!(eval("expand(%0) shape=[1000, 1000]", &[&counted(&[1, 1])]).splat_element().is_some());
}

#[test]
fn made_from_shapes() {
    assert_is(&eval("shape(%0) start=-2", &[&counted(&[2, 3, 4])]), &[2], &[3.0, 4.0]);
    assert_is(&eval("size(%0)", &[&counted(&[2, 3, 4])]), &[], &[24.0]);
    let one = |x: i64| i64s(&[], &[x]);
    assert_is(&eval("range(%0, %1, %2)", &[&one(10), &one(3), &one(-3)]), &[3], &[10.0, 7.0, 4.0]);
    let node = "range(%0, %1, %2)";
    assert!(try_eval(node, &[&one(1), &one(2), &one(1)], &[&one(1), &one(2), &one(0)]).is_err());
    assert_is(&eval("eye_like(%0) k=1 dtype=i32", &[&counted(&[2, 3])]), &[2, 3], &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    assert_is(&eval("trilu(%0) upper=true", &[&x]), &[2, 2], &[1.0, 2.0, 0.0, 4.0]);
    assert_is(&eval("trilu(%0, %1)", &[&x, &one(-1)]), &[2, 2], &[0.0, 0.0, 3.0, 0.0]);
}

#[test]
fn depth_and_space() {
    let x = counted(&[1, 4, 1, 2]);
    // y[0, 0, i, 2 j + l] = x[0, 2 i + l, 0, j]
    let y = eval("depth_to_space(%0) block=2", &[&x]);
    assert_is(&y, &[1, 1, 2, 4], &[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(eval("depth_to_space(%0) block=2 inverse=true", &[&y]), x);
    let y = eval("depth_to_space(%0) block=2 crd=true", &[&counted(&[1, 8, 1, 1])]);
    assert_is(&y, &[1, 2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert!(try_eval("depth_to_space(%0) block=2", &[&x], &[&counted(&[1, 3, 1, 2])]).is_err());
}

#[test]
fn gathers() {
    let x = counted(&[2, 3]);
    let y = eval("gather(%0, %1) axis=1", &[&x, &i64s(&[2, 1], &[-1, 0])]);
    assert_is(&y, &[2, 2, 1], &[2.0, 0.0, 5.0, 3.0]);
    let scalar = eval("gather(%0, %1) axis=0", &[&x, &i64s(&[], &[1])]);
    assert_is(&scalar, &[3], &[3.0, 4.0, 5.0]);
    let error = try_eval("gather(%0, %1) axis=1", &[&x, &i64s(&[1], &[0])], &[&x, &i64s(&[1], &[3])]).unwrap_err();
    assert_eq!(error, "index 3 is outside of a size of 3");
    let y = eval("gather_elements(%0, %1) axis=0", &[&x, &i64s(&[1, 2], &[1, -2])]);
    assert_is(&y, &[1, 2], &[3.0, 1.0]);
    let y = eval("gather_nd(%0, %1) batch_dims=1", &[&x, &i64s(&[2, 1], &[2, 0])]);
    assert_is(&y, &[2], &[2.0, 3.0]);
    let y = eval("gather_nd(%0, %1) batch_dims=0", &[&x, &i64s(&[1, 1], &[-1])]);
    assert_is(&y, &[1, 3], &[3.0, 4.0, 5.0]);
}

#[test]
fn scatters() {
    let x = f32s(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let (indices, updates) = (i64s(&[3, 1], &[0, -1, 0]), f32s(&[3], &[10.0, 20.0, 30.0]));
    let scatter = |how: &str| eval(&format!("scatter_nd(%0, %1, %2) reduction={how}"), &[&x, &indices, &updates]);
    // Of two updates of one place both count, in order.
    assert_is(&scatter("add"), &[4], &[41.0, 2.0, 3.0, 24.0]);
    assert_is(&scatter("mul"), &[4], &[300.0, 2.0, 3.0, 80.0]);
    assert_is(&scatter("none"), &[4], &[30.0, 2.0, 3.0, 20.0]);
    let (indices, updates) = (i64s(&[1, 2], &[2, 0]), f32s(&[1, 2], &[-1.0, 9.0]));
    let y = eval("scatter_elements(%0, %1, %2) axis=0 reduction=min", &[&counted(&[3, 2]), &indices, &updates]);
    assert_is(&y, &[3, 2], &[0.0, 1.0, 2.0, 3.0, -1.0, 5.0]);
    let node = "scatter_nd(%0, %1, %2) reduction=none";
    let (good, bad) = (i64s(&[1, 1], &[0]), i64s(&[1, 1], &[-5]));
    assert!(try_eval(node, &[&x, &good, &f32s(&[1], &[0.0])], &[&x, &bad, &f32s(&[1], &[0.0])]).is_err());
}

#[test]
fn one_hots_and_nonzeros() {
    let inputs = [&i64s(&[3], &[1, -1, 5]), &i64s(&[], &[3]), &f32s(&[2], &[0.0, 2.0])];
    let y = eval("one_hot(%0, %1, %2) axis=-1", &inputs);
    assert_is(&y, &[3, 3], &[0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
    let y = eval("one_hot(%0, %1, %2) axis=0", &inputs);
    assert_is(&y, &[3, 3], &[0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    let y = eval("nonzero(%0)", &[&f32s(&[2, 2], &[1.0, 0.0, 0.0, f32::NAN])]);
    assert_is(&y, &[2, 2], &[0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn reversed_sequences() {
    // Sequences are columns, of which 3, 1 and no elements are reversed.
    let x = counted(&[3, 3]);
    let node = "reverse_sequence(%0, %1) batch_axis=1 time_axis=0";
    let y = eval(node, &[&x, &i64s(&[3], &[3, 1, 0])]);
    assert_is(&y, &[3, 3], &[6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 7.0, 8.0]);
    let rows = eval("reverse_sequence(%0, %1) batch_axis=0 time_axis=-1", &[&x, &i64s(&[3], &[2, 3, 1])]);
    assert_is(&rows, &[3, 3], &[1.0, 0.0, 2.0, 5.0, 4.0, 3.0, 6.0, 7.0, 8.0]);
    for bad in [vec![4, 0, 0], vec![-1, 0, 0]] {
        assert!(try_eval(node, &[&x, &i64s(&[3], &[0, 0, 0])], &[&x, &i64s(&[3], &bad)]).is_err(), "{bad:?}");
    }
}

#[test]
fn bits_of_other_types() {
    let ones = eval("bit_cast(%0) to=i32", &[&Tensor::full([2], 1.0_f32).unwrap()]);
    assert_eq!(ones.to_i64s().unwrap(), [0x3f80_0000; 2]);
    let nan = eval("bit_cast(%0) to=f16", &[&Tensor::vector(vec![0x7e00_u16, 0xc000])]);
    let [nan, minus_two] = nan.to_f64s().unwrap()[..] else { panic!() };
    assert!(nan.is_nan() && minus_two == -2.0);
}

#[test]
fn random_numbers_of_a_seed() {
    let draw = |rest: &str| eval(&format!("random(%0) {rest}"), &[&i64s(&[2], &[3, 4])]);
    let uniform = draw("kind=uniform dtype=f32 alpha=0.0 beta=1.0 seed=5");
    assert_eq!(uniform.dims(), [3, 4]);
    assert_eq!(uniform, draw("kind=uniform dtype=f32 alpha=0.0 beta=1.0 seed=5"));
    assert_ne!(uniform, draw("kind=uniform dtype=f32 alpha=0.0 beta=1.0 seed=6"));
    assert_eq!(draw("kind=normal dtype=f16 alpha=0.0 beta=1.0").dtype(), DType::F16);
}

#[test]
fn rolls() {
    let x = counted(&[2, 3]);
    // numpy.roll(x, (-1, -1), (0, 1))
    let y = eval("roll(%0) axes=[0, 1] shifts=[1, 1]", &[&x]);
    assert_is(&y, &[2, 3], &[4.0, 5.0, 3.0, 1.0, 2.0, 0.0]);
    assert_is(&eval("roll(%0) axes=[1] shifts=[0]", &[&x]), &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(eval("roll(%0) axes=[0] shifts=[0]", &[&counted(&[0, 3])]).dims(), [0, 3]);
    // Inference has seen three columns, the evaluator sees one.
    assert!(try_eval("roll(%0) axes=[1] shifts=[2]", &[&x], &[&counted(&[2, 1])]).is_err());
}

#[test]
fn shuffles() {
    let x = counted(&[2, 3]);
    // x.T.reshape(2, 3).T
    let y = eval("shuffle(%0) before=[1, 0] shape=[2, 3] after=[1, 0]", &[&x]);
    assert_is(&y, &[3, 2], &[0.0, 4.0, 3.0, 2.0, 1.0, 5.0]);
    assert_is(&eval("shuffle(%0) shape=[3, 2]", &[&x]), &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(eval("shuffle(%0)", &[&x]), x);
}
