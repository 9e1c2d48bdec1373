//! Bytes to messages.

use bytes::Bytes;
use prost::Message;

use super::error::ImportError;
use super::limits::Limits;
use super::proto::ModelProto;
use super::scan::scan;

/// How Git LFS begins the text that stands in for a file not fetched.
const LFS: &[u8] = b"version https://git-lfs";

/// Decodes a model; its raw tensor data are slices of `bytes`.
///
/// # Errors
/// If the bytes are not an `onnx.ModelProto` or exceed the limits.
pub(crate) fn decode(bytes: Bytes, limits: &Limits) -> Result<ModelProto, ImportError> {
    if bytes.is_empty() {
        return Err(ImportError::Empty);
    }
    if bytes.starts_with(LFS) {
        return Err(ImportError::LfsPointer);
    }
    scan(&bytes, limits)?;
    Ok(ModelProto::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::super::proto::{GraphProto, TensorProto};
    use super::*;

    fn line(bytes: &'static [u8]) -> String {
        decode(Bytes::from_static(bytes), &Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_model_says_so() {
        insta::assert_snapshot!(line(b""), @"the file is empty");
        insta::assert_snapshot!(
            line(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            @"this is a Git LFS pointer, not a model: run `git lfs pull`"
        );
        assert!(line(b"dummy\n").starts_with("not an ONNX model, or truncated: "));
        assert!(line(b"PK\x03\x04").starts_with("not an ONNX model, or truncated: "));
    }

    #[test]
    fn truncation_is_noticed() {
        let tensor = TensorProto { raw_data: vec![7; 1000].into(), ..Default::default() };
        let graph = GraphProto { initializer: vec![tensor], ..Default::default() };
        let bytes = Bytes::from(ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec());
        assert!(decode(bytes.clone(), &Limits::default()).is_ok());
        for cut in [1, 2, 10, 500, bytes.len() - 1] {
            let error = decode(bytes.slice(..cut), &Limits::default()).unwrap_err();
            assert!(matches!(error, ImportError::Decode(_)), "{cut}: {error}");
        }
    }

    #[test]
    fn records_are_limited_before_they_are_decoded() {
        // A graph of 4 million empty nodes is 8 MB of bytes, and a gigabyte once decoded.
        let nodes = [0x0a, 0x00].repeat(4_000_000);
        let mut bytes = vec![0x3a];
        prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
        bytes.extend_from_slice(&nodes);
        let limits = Limits { max_records: 1_000_000, ..Limits::default() };
        let error = decode(bytes.into(), &limits).unwrap_err();
        insta::assert_snapshot!(error, @"records in the file: 1000001 exceeds the limit of 1000000");
    }
}
