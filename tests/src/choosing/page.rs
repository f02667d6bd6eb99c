//! The figures as tables, between the markers of a page whose other text is written by hand.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// Replaces what is between the page's markers.
pub(crate) fn write(figures: &Value, command: &str, path: &Path) -> Result<()> {
    let page = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{BEGIN} in {}", path.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{END} in {}", path.display()))?;
    let tables = tables(figures, command);
    fs::write(path, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
        .with_context(|| format!("write {}", path.display()))
}

fn tables(figures: &Value, command: &str) -> String {
    let machine = &figures["machine"];
    [
        format!(
            "Made by `{command}` with Flowgate {}, on Linux {}, {} ({} CPUs).\n",
            text(&machine["flowgate"]),
            text(&machine["kernel"]),
            text(&machine["cpu"]),
            machine["cpus"]
        ),
        shares(&figures["shares"]),
        disruption(&figures["disruption"]),
        fill(&figures["fill"]),
        flood(&figures["flood"]),
        count(&figures["count"]),
        ring(&figures["ring"]),
        change(&figures["change"]),
    ]
    .join("\n")
}

fn shares(figures: &Value) -> String {
    let mut out = format!(
        "## Shares against weights\n\n{} new flows each, through the program. Each cell: the largest difference of a \
         backend's share in percentage points, and as a part of its own fair share.\n\n\
         | scheduler | backends | weights | ring | flows | flows drawn by chance |\n\
         | --- | --- | --- | --- | --- | --- |\n",
        whole(&figures["flows"])
    );
    for row in rows(figures) {
        let cell = |which: &str| {
            let errors = &row["errors"][which];
            format!(
                "{:.3}, {:.1} %",
                100.0 * number(&errors["absolute"]),
                100.0 * number(&errors["relative"])
            )
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            text(&row["scheduler"]),
            whole(&row["backends"]),
            text(&row["weights"]),
            cell("ring"),
            cell("flows"),
            cell("by_chance")
        );
    }
    out
}

fn disruption(figures: &Value) -> String {
    let flows = number(&figures["flows"]);
    let shared: u64 = rows(figures).iter().filter_map(|row| row["with_table"]["shared"].as_u64()).sum();
    let mut out = format!(
        "## Flows that change backend\n\n{} established flows of a `dsr` service with equal weights, in a table of {} \
         slots, before a change, after it, and after it was taken back. Beside that a node that has the same backends \
         and no flows: what it would do otherwise after the change, and how much of that had to be, since the flow's \
         old or new backend is the one that changed. (Flows that began as another with the same tag, in all rows \
         together: {}.)\n\n\
         | backends | change | moved, with the table | moved, of the removed backend | moved, without a table | of that, \
         had to |\n| --- | --- | --- | --- | --- | --- |\n",
        whole(&figures["flows"]),
        whole(&figures["slots"]),
        grouped(shared)
    );
    for row in rows(figures) {
        let percent = |value: &Value| format!("{:.2} %", 100.0 * number(value) / flows);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            whole(&row["backends"]),
            text(&row["change"]),
            whole(&row["with_table"]["moved"]),
            whole(&row["with_table"]["moved_of_removed"]),
            percent(&row["without_table"]["moved"]),
            percent(&row["without_table"]["had_to"])
        );
    }
    out
}

fn fill(figures: &Value) -> String {
    let mut out = format!(
        "## Live flows that a full table forgets\n\nEstablished flows, one after the other, into an empty table of {} \
         slots, which is what `limits.flows` = {} makes: 50 % is as full as it is meant to be.\n\n\
         | mode | full | begun | forgotten | refused for want of a port |\n| --- | --- | --- | --- | --- |\n",
        whole(&figures["slots"]),
        grouped(figures["slots"].as_u64().unwrap_or(0) / 2)
    );
    for row in rows(figures) {
        let result = &row["result"];
        let share = |value: &Value| {
            let all = number(&result["begun"]) + number(&result["refused"]);
            format!("{} ({:.3} %)", whole(value), 100.0 * number(value) / all)
        };
        let _ = writeln!(
            out,
            "| {} | {} % | {} | {} | {} |",
            text(&row["mode"]),
            row["percent"],
            whole(&result["begun"]),
            share(&result["evicted"]),
            share(&result["refused"])
        );
    }
    out
}

fn flood(figures: &Value) -> String {
    let mut out = format!(
        "## Established flows in a flood of SYNs\n\nIn a table of {} slots.\n\n\
         | mode | established | SYNs of other clients | of those refused | established flows lost | moved |\n\
         | --- | --- | --- | --- | --- | --- |\n",
        whole(&figures["slots"])
    );
    for row in rows(figures) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            text(&row["mode"]),
            whole(&row["established"]),
            whole(&row["syns"]),
            whole(&row["syns_refused"]),
            whole(&row["lost"]),
            whole(&row["moved"])
        );
    }
    out
}

fn count(figures: &Value) -> String {
    let mut out = format!(
        "## Counting flows\n\nOf each backend, in the tables' own memory: a table of {} slots, {} \
         times.\n\n| mode | flows | median | fastest | slowest |\n| --- | --- | --- | --- | --- |\n",
        whole(&figures["slots"]),
        figures["repetitions"]
    );
    for row in rows(figures) {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            text(&row["mode"]),
            whole(&row["flows"]),
            times(&row["time_us"])
        );
    }
    out
}

fn ring(figures: &Value) -> String {
    let mut out = format!(
        "## Building a ring\n\nOf equal weights; {} times each.\n\n\
         | backends | slots | median | fastest | slowest |\n| --- | --- | --- | --- | --- |\n",
        figures["repetitions"]
    );
    for row in rows(figures) {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            whole(&row["backends"]),
            whole(&row["slots"]),
            times(&row["time_us"])
        );
    }
    out
}

fn change(figures: &Value) -> String {
    format!(
        "## From the command to the first packet that obeys\n\n`flowgate backend set … --weight 0` on a running agent, \
         {} times, while its program is given one new flow after the other ({} in all). Time from the start of the \
         command's process, that is with starting it.\n\n\
         | until | median | fastest | slowest |\n| --- | --- | --- | --- |\n\
         | the last flow that goes to the backend | {} |\n| the command has ended | {} |\n",
        figures["repetitions"],
        whole(&figures["flows"]),
        times(&figures["obeyed_us"]),
        times(&figures["answered_us"])
    )
}

fn rows(figures: &Value) -> &[Value] {
    figures["rows"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn whole(value: &Value) -> String {
    value.as_u64().map_or_else(|| "?".to_owned(), grouped)
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| String::from_utf8_lossy(group).into_owned()).collect::<Vec<_>>().join(",")
}

fn times(micros: &Value) -> String {
    let time = |name: &str| {
        let micros = number(&micros[name]);
        if micros < 1000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1000.0) }
    };
    ["median", "least", "most"].map(time).join(" | ")
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_048_576].map(grouped), ["0", "999", "1,000", "1,048,576"]);
    }
}
