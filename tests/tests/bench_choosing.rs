//! The figures on choosing a backend can be made, and those that must be zero are.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use harness::scratch::Scratch;
use serde_json::Value;

fn rows(figures: &Value) -> &[Value] {
    figures["rows"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn a_quick_run_makes_every_figure_and_the_page() -> Result<()> {
    let scratch = Scratch::new()?;
    let (json, page) = (scratch.path().join("figures/choosing.json"), scratch.path().join("choosing.md"));
    let template = "# By hand\n\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nThe end.\n";
    fs::write(&page, template)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_choosing"));
    let output = command.arg("--quick").arg("--json").arg(&json).arg("--page").arg(&page).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    ensure!(rows(&figures["shares"]).len() == 4 * 2 * 3, "{}", figures["shares"]);
    ensure!(rows(&figures["disruption"]).len() == 6, "{}", figures["disruption"]);
    for row in rows(&figures["disruption"]) {
        ensure!(row["with_table"]["moved"] == 0, "{row}");
        ensure!(row["without_table"]["had_to"] != 0, "{row}");
    }
    for row in rows(&figures["flood"]) {
        ensure!(row["lost"] == 0 && row["moved"] == 0, "{row}");
    }
    ensure!(figures["change"]["obeyed_us"]["median"].as_f64() > Some(0.0), "{}", figures["change"]);

    let page = fs::read_to_string(&page)?;
    ensure!(
        page.starts_with("# By hand\n") && page.ends_with("The end.\n") && !page.contains("old\n"),
        "{page}"
    );
    for kind in
        ["| least-conn | 10 |", "| 10 | one is removed |", "| full-nat | 100 % |", "| 10,000 |", "| median |"]
    {
        ensure!(page.contains(kind), "{kind} is not in {page}");
    }
    ensure!(!page.contains("NaN") && !page.contains('?'), "{page}");
    Ok(())
}
