use super::*;
use crate::testing::{Run, run_rule};

const COMMON: &str = "cubic_coeff=-0.75 extrapolation=0.5";

fn run(inputs: &str, slots: &str, output: &str, attrs: &str) -> Run {
    let text = format!(
        "graph g({inputs}) -> (%y) {{
            %s = constant() value=f32[4] {{1, 1, 0.65, 1.55}}
            %z = constant() value=i64[4] {{1, 2, 3, 9}}
            %r = constant() value=f32[8] {{0, 0, 0.3, -0.2, 1, 1, 0.8, 0.7}}
            %y = resize(%x, {slots}) {attrs} {COMMON} : {output} }}"
    );
    run_rule(LowerResize, &text)
}

#[test]
fn fires_on_antialiasing() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch antialias=true";
    let run = run("%x: f32[1, 2, 3, 4]", "_, _, %z", "f32[1, 2, 3, 9]", attrs);
    insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
    graph g(%x: f32[1, 2, 3, 4]) -> (%y) {
      %y.lower_resize = constant() value=f32[9, 4] #7ee18582f18cf317
      %y = matmul(%x, %y.lower_resize) transpose_b=true : f32[1, 2, 3, 9]
    }
    ");
}

#[test]
fn constant_matrices_equal_the_operator() {
    for mode in ["nearest", "linear", "cubic"] {
        for more in ["", "antialias=true", "exclude_outside=true", "antialias=true exclude_outside=true"] {
            let attrs = |coordinates: &str| {
                format!("mode={mode} coordinates={coordinates} nearest=round_prefer_ceil aspect=stretch {more}")
            };
            for coordinates in ["half_pixel_symmetric", "tf_half_pixel_for_nn", "align_corners"] {
                let run = run("%x: f32[1, 2, 8, 5]", "_, %s, _", "f32[1, 2, 5, 7]", &attrs(coordinates));
                assert_eq!(run.equal_within(2e-6, 1).rewrites, 1, "{coordinates} {mode} {more}");
            }
            let attrs = attrs("tf_crop_and_resize");
            let run = run("%x: f32[1, 2, 8, 5]", "%r, _, %z", "f32[1, 2, 3, 9]", &attrs);
            assert_eq!(run.equal_within(2e-6, 1).rewrites, 1, "{attrs}");
        }
    }
}

#[test]
fn computed_matrices_equal_the_operator() {
    for mode in ["nearest", "linear", "cubic"] {
        for coordinates in ["half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn", "asymmetric", "align_corners"]
        {
            for more in ["", "antialias=true", "exclude_outside=true"] {
                let attrs = format!("mode={mode} coordinates={coordinates} nearest=round_prefer_floor {more}");
                let scales = Tensor::vector(vec![1.0_f32, 1.0, 0.65, 1.55]);
                compare("%p: f32[4]", "_, %p, _", "f32[1, 2, 5, 7]", &format!("{attrs} aspect=stretch"), scales);
                let sizes = Tensor::vector(vec![4_i64, 9]);
                let kept = format!("{attrs} axes=[2, 3] aspect=not_larger");
                compare("%p: i64[2]", "_, _, %p", "f32[1, 2, 4, 3]", &kept, sizes);
            }
        }
        let region = Tensor::vector(vec![0.0_f32, 0.0, 0.3, -0.2, 1.0, 1.0, 0.8, 0.7]);
        let attrs = format!("mode={mode} coordinates=tf_crop_and_resize nearest=floor aspect=stretch");
        compare("%p: f32[8]", "%p, _, %z", "f32[1, 2, 3, 9]", &attrs, region);
    }
}

/// Lowers a resize of a parameter that is an input, and compares outputs for one value of it.
fn compare(parameter: &str, slots: &str, output: &str, attrs: &str, value: Tensor) {
    let run = run(&format!("%x: f32[1, 2, 8, 5], {parameter}"), slots, output, attrs);
    assert_eq!(run.rewrites, 1, "{attrs}");
    let mut inputs = crate::testing::random_inputs(&run.before, 1, 1);
    inputs[1] = value;
    let evaluated = |graph| trt_fuse_ir::eval::eval_graph(graph, &inputs).unwrap().remove(0);
    let gap = crate::testing::difference(&evaluated(&run.before), &evaluated(&run.after));
    assert!(gap <= 2e-5, "{attrs}: outputs differ by {gap}\n{}", run.after);
}

#[test]
fn integers_are_rounded() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch antialias=true";
    let run = run("%x: i32[1, 2, 6, 9]", "_, _, %z", "i32[1, 2, 3, 9]", attrs);
    assert_eq!(run.equal_within(0.0, 1).rewrites, 1);
}

#[test]
fn leaves_what_the_layer_does_alone() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch";
    assert_eq!(run("%x: f32[1, 2, 8, 5]", "_, %s, _", "f32[1, 2, 5, 7]", attrs).rewrites, 0);
}

#[test]
fn refuses_symbolic_sizes() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch antialias=true";
    let run = run("%x: f32[1, 2, h, 5]", "_, _, %z", "f32[1, 2, 3, 9]", attrs);
    assert_eq!((run.rewrites, run.reasons()), (0, vec!["the sizes are known only at run time"]));
}

#[test]
fn integers_are_moved_exactly() {
    let attrs = "mode=nearest coordinates=half_pixel nearest=floor aspect=stretch";
    for dtype in ["u8", "i8", "i16", "u16", "i32", "u32", "i64"] {
        let text = format!(
            "graph g(%x: {dtype}[1, 2, h, w]) -> (%y) {{
                %s = constant() value=f32[4] {{1, 1, 2, 1.5}}
                %y = resize(%x, _, %s, _) {attrs} {COMMON} }}"
        );
        let run = run_rule(LowerResize, &text);
        assert_eq!(run.rewrites, 1, "{dtype}");
        // The ends of the type, and numbers that no f32 holds.
        let ends = [i64::MIN, i64::MAX, -16_777_217, 16_777_217, -(1 << 40) - 1, 5];
        let x = Tensor::from_vec([1, 2, 1, 3], ends.to_vec()).unwrap();
        let to = x.dtype();
        let text = format!("graph g(%x: {to}[1, 2, 1, 3]) -> (%y) {{ %y = cast(%x) to={dtype} saturate=true }}");
        let x = trt_fuse_ir::eval::eval_graph(&text.parse().unwrap(), &[x]).unwrap();
        let eval = |graph| trt_fuse_ir::eval::eval_graph(graph, &x).unwrap();
        assert_eq!(eval(&run.before), eval(&run.after), "{dtype}");
    }
}

#[test]
fn integers_are_interpolated_as_floats_and_rounded() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch";
    for sizes in ["1, 2, 4, 5", "1, 2, h, w"] {
        let text = format!(
            "graph g(%x: i32[{sizes}]) -> (%y) {{
                %s = constant() value=f32[4] {{1, 1, 2, 2}}
                %y = resize(%x, _, %s, _) {attrs} {COMMON} }}"
        );
        assert_eq!(run_rule(LowerResize, &text).equal_within(0.0, 4).rewrites, 1);
    }
}

#[test]
fn refuses_huge_matrices() {
    let attrs = "mode=linear coordinates=half_pixel nearest=floor aspect=stretch antialias=true";
    let text = format!(
        "graph g(%x: f32[1, 1, 1, 30000]) -> (%y) {{
            %s = constant() value=f32[4] {{1, 1, 1, 30000}}
            %y = resize(%x, _, %s, _) {attrs} {COMMON} }}"
    );
    assert_eq!(run_rule(LowerResize, &text).reasons(), ["its matrices of interpolation are too large"]);
}
