//! A first look at a model's bytes, before memory is taken for them.
//!
//! A record of two bytes (an empty message or string) becomes hundreds of bytes once decoded, so a small hostile file
//! can ask for a lot. [`scan`] walks the records that [`super::proto`] would decode, without decoding them, and counts.
//! It says nothing of bytes that are not protobuf: it stops where decoding will fail too.

use super::error::ImportError;
use super::limits::{Limits, check};

/// The messages that contain repeated messages or strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    ValueInfo,
    Type,
    /// Sequence, optional and map types: one type inside.
    Wrapper,
    TensorType,
    Shape,
    Tensor,
    Sparse,
    /// A string, or a message of scalars and single strings.
    Leaf,
}

/// The message that `field` of `kind` holds; `None` for fields that take no more memory than their bytes.
fn record(kind: Kind, field: u64) -> Option<Kind> {
    use Kind::*;
    Some(match (kind, field) {
        (Model, 7) => Graph,
        (Model, 25) => Function,
        (Model, 8 | 14) => Leaf,
        (Graph, 1) | (Function, 7) => Node,
        (Graph, 5) => Tensor,
        (Graph, 11..=13) | (Function, 12) => ValueInfo,
        (Graph, 15) => Sparse,
        (Graph, 16) => Leaf,
        (Function, 11) | (Node, 5) => Attribute,
        (Function, 4..=6 | 9 | 14) | (Node, 1 | 2 | 9) => Leaf,
        (Attribute, 5 | 10) => Tensor,
        (Attribute, 6 | 11) => Graph,
        (Attribute, 9) => Leaf,
        (Attribute, 14 | 15) | (ValueInfo, 2) => Type,
        (Attribute, 22 | 23) => Sparse,
        (Type, 1 | 8) => TensorType,
        (Type, 4 | 5 | 9) => Wrapper,
        (Wrapper, 1 | 2) => Type,
        (TensorType, 2) => Shape,
        (Shape, 1) => Leaf,
        (Tensor, 3 | 6 | 13) => Leaf,
        (Sparse, 1 | 2) => Tensor,
        _ => return None,
    })
}

/// Levels of messages that prost decodes.
const PROST_DEPTH: usize = 100;

/// Checks the records of an `onnx.ModelProto` against the limits.
///
/// # Errors
/// If it holds too many records, or graphs nested too deep.
pub(crate) fn scan(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    let mut records = 0_usize;
    let mut graphs = 0_usize;
    // Messages that are open, with the position of their end.
    let mut open = vec![(Kind::Model, bytes.len())];
    let mut at = 0_usize;
    while let Some(&(kind, end)) = open.last() {
        if at == end {
            graphs -= usize::from(kind == Kind::Graph);
            open.pop();
            continue;
        }
        let Some((field, payload)) = field(bytes, &mut at) else { break };
        if at > end {
            break;
        }
        let Payload::Bytes(len) = payload else { continue };
        let Some(stop) = at.checked_add(len).filter(|stop| *stop <= end) else { break };
        let Some(child) = record(kind, field).filter(|_| open.len() <= PROST_DEPTH) else {
            at = stop;
            continue;
        };
        records += 1;
        check(records as u64, limits.max_records as u64, || "records in the file".to_owned())?;
        if child == Kind::Graph {
            graphs += 1;
            // The main graph is no subgraph.
            check(graphs as u64 - 1, limits.max_depth as u64, || "depth of subgraphs".to_owned())?;
        }
        match child {
            Kind::Leaf => at = stop,
            _ => open.push((child, stop)),
        }
    }
    Ok(())
}

enum Payload {
    /// Already passed over.
    Scalar,
    /// Length of the bytes that follow.
    Bytes(usize),
}

/// Reads one field's key, and its value or length; `None` where the bytes are not protobuf.
fn field(bytes: &[u8], at: &mut usize) -> Option<(u64, Payload)> {
    let key = varint(bytes, at)?;
    let payload = match key & 7 {
        0 => {
            varint(bytes, at)?;
            Payload::Scalar
        }
        1 => skip(at, 8)?,
        2 => Payload::Bytes(usize::try_from(varint(bytes, at)?).ok()?),
        // Group marks have no payload; the fields between them are read as if there were no group.
        3 | 4 => Payload::Scalar,
        5 => skip(at, 4)?,
        _ => return None,
    };
    Some((key >> 3, payload))
}

fn skip(at: &mut usize, count: usize) -> Option<Payload> {
    *at = at.checked_add(count)?;
    Some(Payload::Scalar)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
    use super::*;

    fn nested(depth: usize) -> ModelProto {
        let mut graph = GraphProto::default();
        for _ in 0..depth {
            let attribute = vec![AttributeProto { g: Some(graph), ..Default::default() }];
            graph = GraphProto { node: vec![NodeProto { attribute, ..Default::default() }], ..Default::default() };
        }
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn records_are_counted_through_all_levels() {
        let node = NodeProto { input: vec![String::new(); 2], output: vec!["y".into()], ..Default::default() };
        let graph = GraphProto {
            node: vec![node.clone(), node],
            initializer: vec![TensorProto { raw_data: vec![0x0a; 64].into(), ..Default::default() }],
            ..Default::default()
        };
        // The graph, two nodes with three names each, a tensor; raw bytes are not looked into.
        let bytes = ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec();
        let limits = |max_records| Limits { max_records, ..Limits::default() };
        assert!(scan(&bytes, &limits(10)).is_ok());
        assert!(matches!(scan(&bytes, &limits(9)), Err(ImportError::Limit { found: 10, limit: 9, .. })));
    }

    #[test]
    fn nesting_is_bounded() {
        let limits = Limits { max_depth: 5, ..Limits::default() };
        assert!(scan(&nested(5).encode_to_vec(), &limits).is_ok());
        assert!(matches!(
            scan(&nested(6).encode_to_vec(), &limits),
            Err(ImportError::Limit { found: 6, limit: 5, .. })
        ));
        // Closing a graph gives its level back.
        let mut wide = nested(5);
        let node = wide.graph.as_ref().unwrap().node[0].clone();
        wide.graph.as_mut().unwrap().node.push(node);
        assert!(scan(&wide.encode_to_vec(), &limits).is_ok());
    }

    #[test]
    fn any_bytes_come_to_an_end() {
        let model = nested(3).encode_to_vec();
        for cut in 0..model.len() {
            assert!(scan(&model[..cut], &Limits::default()).is_ok());
        }
        for bytes in [&[0xff; 30][..], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], b"dummy\n"] {
            assert!(scan(bytes, &Limits::default()).is_ok());
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            scan(&bytes, &Limits::default()).unwrap();
        }
    }
}
