//! The report as a page, opened in headless Chromium, which `make chromium` gets; skipped where there is none.

mod common;

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{cache, skip, unpacked};
use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use trt_fuse::Options;
use trt_fuse::report::{Reported, Wanted, fuse_report, page, write_page};

const NAMES: &[&str] = &["chromium-headless-shell", "chromium", "google-chrome", "chrome"];

/// A browser, and the folders of libraries that it needs.
struct Chromium {
    program: PathBuf,
    libraries: String,
}

impl Chromium {
    fn find() -> Option<Self> {
        let named = std::env::var_os("TRT_FUSE_CHROMIUM").map(PathBuf::from);
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let on_path = || NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        let unpacked = cache().join("chromium/usr/lib");
        let cached = unpacked.join("chromium/chromium-headless-shell");
        let Some(program) =
            named.or_else(|| on_path().find(|path| path.is_file())).or(Some(cached).filter(|path| path.is_file()))
        else {
            skip("there is no Chromium, run `make chromium`");
            return None;
        };
        let machine = unpacked.join(format!("{}-linux-gnu", std::env::consts::ARCH));
        Some(Self { program, libraries: format!("{0}:{0}/pulseaudio", machine.display()) })
    }

    /// Opens a page of 1400 by 1000 and gives what was printed.
    fn open(&self, page: &Path, fragment: &str, arguments: &[&str]) -> String {
        let profile = tempfile::tempdir().unwrap();
        let output = Command::new(&self.program)
            .env("LD_LIBRARY_PATH", &self.libraries)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--window-size=1400,1000",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(arguments)
            .arg(format!("file://{}{fragment}", page.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The page's elements after its scripts ran.
    fn elements(&self, page: &Path, fragment: &str) -> String {
        self.open(page, fragment, &["--dump-dom"])
    }

    /// The colours of a picture of the page, row by row.
    fn colours(&self, page: &Path, arguments: &[&str]) -> Vec<[u8; 3]> {
        let file = page.with_extension("png");
        let screenshot = format!("--screenshot={}", file.display());
        self.open(page, "", &[&[screenshot.as_str()], arguments].concat());
        let mut reader = png::Decoder::new(BufReader::new(std::fs::File::open(file).unwrap())).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height, info.bit_depth), (1400, 1000, png::BitDepth::Eight));
        let samples = info.color_type.samples();
        bytes.chunks_exact(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    }
}

fn reported(path: &Path) -> Reported {
    let wanted = Wanted { trace: true, ..Wanted::default() };
    fuse_report(path, &Options::default(), wanted, None).unwrap()
}

/// The number that follows the first occurrence of a text.
fn number(text: &str, before: &str) -> usize {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no `{before}` in the page")).1;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn canvas<'t>(elements: &'t str, id: &str) -> &'t str {
    elements.split_once(&format!("<canvas id=\"{id}\"")).unwrap().1.split_once('>').unwrap().0
}

fn rows(elements: &str, table: &str) -> usize {
    let table = elements.split_once(&format!("<table id=\"{table}\"")).unwrap().1.split_once("</table>").unwrap().0;
    table.split_once("<tbody>").unwrap().1.matches("<tr>").count()
}

/// A model of so many nodes: blocks of three branches from a chain, all adding one input.
fn branching(nodes: usize) -> onnx::ModelProto {
    let node = |op: &str, inputs: &[&str], output: &str| onnx::NodeProto {
        op_type: op.to_string(),
        name: format!("{op}:<i>{output}</i></script>"),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_string()],
        ..onnx::NodeProto::default()
    };
    let value = |name: &str| onnx::ValueInfoProto {
        name: name.to_string(),
        type_: Some(onnx::TypeProto {
            value: Some(onnx::type_proto::Value::TensorType(onnx::type_proto::Tensor {
                elem_type: 1,
                shape: Some(onnx::TensorShapeProto {
                    dim: vec![onnx::tensor_shape_proto::Dimension {
                        value: Some(onnx::tensor_shape_proto::dimension::Value::DimValue(4)),
                        ..Default::default()
                    }],
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            })),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let mut graph = onnx::GraphProto { name: "g".to_string(), ..Default::default() };
    let mut last = "x".to_string();
    for block in 0..nodes / 5 {
        let [a, b, c, d, e] = &["a", "b", "c", "d", "e"].map(|branch| format!("{branch}{block}"));
        graph.node.push(node("Sin", &[&last], a));
        graph.node.push(node("Sigmoid", &[&last], b));
        graph.node.push(node("Mul", &[&last, b], c));
        graph.node.push(node("Add", &[a, c], d));
        graph.node.push(node("Add", &[d, "every"], e));
        last.clone_from(e);
    }
    graph.input = vec![value("x"), value("every")];
    graph.output = vec![value(&last)];
    onnx::ModelProto {
        ir_version: 8,
        opset_import: vec![onnx::OperatorSetIdProto { version: 17, ..Default::default() }],
        graph: Some(graph).into(),
        ..Default::default()
    }
}

#[test]
fn the_page_shows_the_counts_of_the_report() {
    let reported = reported(&unpacked("light_densenet121"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    write_page(&reported, &file).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("{{"));

    let Some(chromium) = Chromium::find() else { return };
    let elements = chromium.elements(&file, "#find=BatchNormalization");
    assert!(elements.contains("data-ready=\"yes\""));
    let report = &reported.report;
    assert!(elements.contains(&format!("<b>{} → {}</b>", report.nodes.before, report.nodes.after)));
    let ends = |graph: &trt_fuse::ir::Graph| graph.inputs().len() + graph.outputs().len();
    let imported = reported.imported.as_ref().unwrap();
    for (id, graph) in [("before", imported), ("after", &reported.graph)] {
        let canvas = canvas(&elements, id);
        assert_eq!(number(canvas, "data-nodes=\""), graph.operation_count() + ends(graph));
        let drawn = number(canvas, "data-drawn=\"");
        assert!(drawn > 3 && drawn < 200, "{canvas}");
    }
    assert_eq!(rows(&elements, "ops-before"), report.ops.before.len());
    assert_eq!(rows(&elements, "ops-after"), report.ops.after.len());
    assert_eq!(rows(&elements, "passes"), report.passes.iter().filter(|pass| pass.rewrites > 0).count());
    assert_eq!(elements.matches("<details>").count(), report.remark_groups.len());
    let hits = elements.split_once("id=\"hits\"").unwrap().1.split_once("</span>").unwrap().0;
    assert_eq!(number(hits, ">"), report.ops.before["BatchNormalization"], "{hits}");
    assert!(elements.contains("became: conv"), "a hit is chosen, and its fate told");
}

#[test]
fn the_page_can_be_read_in_light_and_dark() {
    let Some(chromium) = Chromium::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    write_page(&reported(&unpacked("squeezenet1_1")), &file).unwrap();
    let brightness = |colour: &[u8; 3]| colour.iter().map(|part| u32::from(*part)).sum::<u32>() / 3;
    for (scheme, is_light) in
        [("--blink-settings=preferredColorScheme=1", true), ("--blink-settings=preferredColorScheme=0", false)]
    {
        let colours = chromium.colours(&file, &[scheme]);
        let ground = colours[1400 * 2 + 2];
        assert_eq!(brightness(&ground) > 200, is_light, "{ground:?}");
        assert_eq!(brightness(&ground) < 60, !is_light, "{ground:?}");
        let distinct: BTreeSet<[u8; 3]> = colours.iter().copied().collect();
        assert!(distinct.len() > 200, "{} colours", distinct.len());
        // In both halves below the heading there are fused groups, which have a hue, and letters against the ground.
        for half in [0..700, 700..1400] {
            let part =
                || (300..900).flat_map(|row| half.clone().map(move |column| row * 1400 + column)).map(|at| colours[at]);
            let hued = part().filter(|colour| colour.iter().max().unwrap() - colour.iter().min().unwrap() > 18).count();
            assert!(hued > 2000, "{hued} pixels with a hue in {half:?}, light: {is_light}");
            let contrast = part().filter(|colour| brightness(colour).abs_diff(brightness(&ground)) > 150).count();
            assert!(contrast > 300, "{contrast} pixels of letters in {half:?}, light: {is_light}");
        }
    }
}

/// What a person does with wheel, mouse and keys, and what the page then says of itself.
const HANDS: &str = r#"<script>
const box = document.getElementById("before").getBoundingClientRect();
const told = [];
const tell = () => { const d = document.getElementById("before").dataset; told.push(`${d.scale} ${d.drawn}`); };
const pointer = (type, x, y) => before.canvas.dispatchEvent(
  new PointerEvent(type, { pointerId: 1, clientX: box.left + x, clientY: box.top + y, bubbles: true }));
tell();
before.canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -400, clientX: box.left + 50, clientY: box.top + 50, cancelable: true }));
tell();
document.getElementById("fit").click();
tell();
const y = before.y;
pointer("pointerdown", 100, 100); pointer("pointermove", 140, 180); pointer("pointerup", 140, 180);
told.push(`moved ${Math.round(before.y - y)}`);
before.canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
told.push(`moved ${Math.round(before.y - y)}`);
const at = before.nodes.findIndex((node) => node.label === "Mul");
before.centre(at);
before.draw();
const node = before.nodes[at];
const px = node.x * before.scale + before.x, py = node.y * before.scale + before.y;
pointer("pointermove", px, py);
told.push("tip " + document.getElementById("tip").textContent.split("\n")[0]);
pointer("pointerdown", px, py); pointer("pointerup", px, py);
told.push(`lit ${before.lit.size} ${after.lit.size}`);
document.getElementById("find").value = "sigmoid:<i>b7</i>";
document.getElementById("find").dispatchEvent(new Event("input"));
told.push(document.getElementById("hits").textContent);
document.documentElement.dataset.told = told.join(" | ");
</script>"#;

#[test]
fn five_thousand_nodes_can_be_moved_zoomed_and_searched() {
    let Some(chromium) = Chromium::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, branching(5000).write_to_bytes().unwrap()).unwrap();
    let reported = reported(&path);
    assert_eq!(reported.report.nodes.before, 5000);
    let file = folder.path().join("report.html");
    std::fs::write(&file, page(&reported) + HANDS).unwrap();
    let elements = chromium.elements(&file, "");
    // Names from the file are text wherever they are.
    assert!(
        !elements.contains("<i>b7</i>") || elements.split_once("id=\"data\"").unwrap().0.matches("<i>b").count() == 0
    );
    let (before, after) = (canvas(&elements, "before"), canvas(&elements, "after"));
    assert_eq!(number(before, "data-nodes=\""), 5003);
    assert_eq!(number(after, "data-nodes=\""), reported.graph.operation_count() + 3);
    let told = elements.split_once("data-told=\"").unwrap().1.split_once('"').unwrap().0;
    let told: Vec<&str> = told.split(" | ").collect();
    let scale = |at: usize| told[at].split(' ').next().unwrap().parse::<f64>().unwrap();
    let drawn = |at: usize| told[at].split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    assert!(scale(1) > 1.5 * scale(0) && scale(2) < 0.1 * scale(0), "{told:?}");
    assert!(drawn(0) < 200 && drawn(2) == 5003, "{told:?}");
    assert_eq!(told[3..5], ["moved 80", "moved 140"]);
    assert!(told[5].starts_with("tip Mul") && told[5].contains("Mul:"), "{told:?}");
    // The product and the sigmoid have become one node.
    assert_eq!(told[6], "lit 2 1");
    assert_eq!(told[7], "1 before, 1 after");
}
