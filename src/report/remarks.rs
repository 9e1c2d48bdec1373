//! Near misses, grouped by reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use trt_fuse_passes::Remark;

/// Nodes of a group that the text names.
const SHOWN: usize = 3;

/// The nodes at which one rule was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemarkGroup {
    /// The rule.
    pub rule: &'static str,
    /// The condition that fails.
    pub condition: String,
    /// Number of nodes.
    pub count: usize,
    /// The ONNX nodes, in order of their names.
    pub nodes: Vec<String>,
}

/// Remarks of one rule and one condition together, the largest groups first.
pub fn group_remarks(remarks: &[Remark]) -> Vec<RemarkGroup> {
    let mut groups: Vec<RemarkGroup> = by_condition(remarks)
        .into_iter()
        .map(|((condition, rule), remarks)| RemarkGroup {
            rule,
            condition: condition.to_string(),
            count: remarks.len(),
            nodes: remarks.iter().map(|remark| remark.node.to_string()).collect(),
        })
        .collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.condition, a.rule).cmp(&(&b.condition, b.rule))));
    groups
}

type Condition<'r> = (&'r str, &'static str);

pub(super) fn by_condition(remarks: &[Remark]) -> BTreeMap<Condition<'_>, Vec<&Remark>> {
    let mut groups: BTreeMap<Condition<'_>, Vec<&Remark>> = BTreeMap::new();
    for remark in remarks {
        groups.entry((&remark.condition, remark.rule)).or_default().push(remark);
    }
    groups
}

/// What is said of one node: its type and name, and the reason where that says more than the condition.
pub(super) fn at_node(remark: &Remark) -> String {
    let op = if remark.op.is_empty() { "node" } else { &remark.op };
    let more = if remark.reason == remark.condition { String::new() } else { format!(": {}", remark.reason) };
    format!("{op} {}{more}", remark.node)
}

/// Remarks as text: a line for each reason, and under it the first nodes.
pub fn remarks_text(remarks: &[Remark]) -> String {
    if remarks.is_empty() {
        return "no rewrite nearly applied\n".to_string();
    }
    let rewrites = if remarks.len() == 1 { "rewrite" } else { "rewrites" };
    let mut text = format!("{} {rewrites} nearly applied, and why not:\n", remarks.len());
    let by_condition = by_condition(remarks);
    for RemarkGroup { rule, condition, count, .. } in group_remarks(remarks) {
        let _ = writeln!(text, "{count:5} {condition} ({rule})");
        let of_group = by_condition.get(&(condition.as_str(), rule)).map(Vec::as_slice).unwrap_or_default();
        for remark in of_group.iter().take(SHOWN) {
            let _ = writeln!(text, "        {}", at_node(remark));
        }
        if count > SHOWN {
            let _ = writeln!(text, "        and {} more", count - SHOWN);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remark(rule: &'static str, node: &str, reason: &str, condition: &str) -> Remark {
        Remark { rule, node: node.into(), op: "Relu".into(), reason: reason.into(), condition: condition.into() }
    }

    #[test]
    fn remarks_are_grouped_by_reason_the_largest_first() {
        let mut remarks = vec![remark("fuse_pad", "a", "too wide", "too wide")];
        for node in ["b", "c", "d", "e"] {
            let reason = format!("output of `{node}` also read by `z`");
            remarks.push(remark("fuse_gelu", node, &reason, "an inner output has another reader"));
        }
        insta::assert_snapshot!(remarks_text(&remarks), @"
        5 rewrites nearly applied, and why not:
            4 an inner output has another reader (fuse_gelu)
                Relu b: output of `b` also read by `z`
                Relu c: output of `c` also read by `z`
                Relu d: output of `d` also read by `z`
                and 1 more
            1 too wide (fuse_pad)
                Relu a
        ");
        let groups = group_remarks(&remarks);
        assert_eq!((groups[0].count, groups[0].nodes.join(" ")), (4, "b c d e".to_string()));
        assert_eq!(remarks_text(&[]), "no rewrite nearly applied\n");
    }
}
