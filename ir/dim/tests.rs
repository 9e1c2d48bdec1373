//! Tests of dimensions.

use proptest::prelude::*;

use super::*;

fn dim(text: &str) -> Dim {
    text.parse().unwrap()
}

#[test]
fn equal_expressions_have_one_form() {
    assert_eq!(dim("2*batch+batch"), dim("3*batch"));
    assert_eq!(dim("(a+b)*(a-b)"), dim("a*a-b*b"));
    assert_eq!(dim("a-a"), Dim::fixed(0));
    assert_eq!(dim("(2*h+3)/2"), dim("h+1"));
    assert_eq!(dim("batch*8*128/128"), dim("8*batch"));
    assert_eq!(dim("n*c*h/(c*h)"), dim("n"));
    assert_eq!(dim("((h+1)/2+1)/2"), dim("(h+3)/4"));
    assert_eq!(dim("3*(a+b)/(a+b)"), Dim::fixed(3));
    assert_eq!(dim("(4*h)%4"), Dim::fixed(0));
}

#[test]
fn bounds_decide_minima() {
    assert_eq!(dim("min(h, h+3)"), dim("h"));
    assert_eq!(dim("max(h, 0)"), dim("h"));
    assert_eq!(dim("max(h, w)").to_string(), "max(h, w)");
    assert_eq!(dim("max(h, min(h, 512))"), dim("h"));
    assert_eq!(dim("min(min(h, 512), h)"), dim("min(h, 512)"));
    assert!(dim("2*h+1").at_least(1));
    assert!(!dim("h-1").at_least(0));
}

#[test]
fn long_products_are_not_multiplied_out() {
    let sum = |prefix: &str| (0..40).fold(Dim::fixed(1), |sum, at| sum + Dim::symbol(format!("{prefix}{at}")));
    let product = (0..20).fold(sum("a"), |product, _| &product * &sum("b"));
    assert!(product.weight() < 3000, "{}", product.weight());
    let one = &sum("a") * &sum("b");
    assert_eq!(one.evaluate(&|_| Some(1)), Some(41 * 41));
    assert_eq!(one.to_string().parse::<Dim>().unwrap(), one);
}

#[test]
fn text_is_parsed_back() {
    for text in ["3", "batch", "2*batch", "(h+1)/2", "2*((h+1)/2)+1", "`a b`", "a*b-1", "max(h, w)", "-h+7"] {
        assert_eq!(dim(text).to_string().parse::<Dim>().unwrap(), dim(text), "{text}");
    }
    assert!("h/0".parse::<Dim>().is_err());
    assert!("".parse::<Dim>().is_err());
    assert!("(".repeat(5000).parse::<Dim>().is_err());
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![(0..9_i64).prop_map(|n| n.to_string()), Just("a".to_string()), Just("b".to_string())];
    leaf.prop_recursive(4, 24, 2, |inner| {
        (
            inner.clone(),
            prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%"), Just("min"), Just("max")],
            inner,
        )
            .prop_map(|(a, op, b)| match op {
                "min" | "max" => format!("{op}({a}, {b})"),
                // Positive divisors: ONNX dimensions are never divided by others.
                "/" | "%" => format!("({a}){op}(max({b}, 0)+1)"),
                _ => format!("({a}){op}({b})"),
            })
    })
}

/// Plain arithmetic on numbers, without any canonical form.
fn naive(text: &str, a: i64, b: i64) -> Option<i64> {
    let fixed = text.replace("max", "MX").replace('a', &format!("({a})")).replace('b', &format!("({b})"));
    fixed.replace("MX", "max").parse::<Dim>().ok()?.value()
}

proptest! {
    #[test]
    fn canonical_forms_keep_values(text in expression(), a in 0..40_i64, b in 0..40_i64) {
        let symbolic = dim(&text);
        let lookup = |name: &str| Some(if name == "a" { a } else { b });
        prop_assert_eq!(symbolic.evaluate(&lookup), naive(&text, a, b));
        prop_assert_eq!(symbolic.to_string().parse::<Dim>().unwrap().evaluate(&lookup), symbolic.evaluate(&lookup));
    }
}
