//! The viewer's settings: every key its clients know, its default, and what it may be.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Settings by name.
pub type Settings = BTreeMap<String, Value>;

const COLLAPSE: &[&str] = &["none", "leaves", "all", "root", "E", "1", "C", "R"];
const CAMERA: &[&str] = &[
    "RESET", "CENTER", "KEEP", "ISO", "TOP", "BOTTOM", "LEFT", "RIGHT", "BACK", "FRONT",
];

/// The settings of an operator who sets nothing.
#[must_use]
pub fn defaults() -> Map<String, Value> {
    let all = json!({
        "ambient_intensity": 1.0, "angular_tolerance": 0.2, "axes": false, "axes0": true,
        "black_edges": false, "center_grid": false, "collapse": "1", "control": "trackball",
        "debug": false, "default_color": "#e8b024", "default_edgecolor": "#707070",
        "default_facecolor": "Violet", "default_opacity": 0.5,
        "default_thickedgecolor": "MediumOrchid", "default_vertexcolor": "MediumOrchid",
        "deviation": 0.1, "direct_intensity": 1.1, "explode": false, "glass": true,
        "grid": [false, false, false], "grid_font_size": 12, "metalness": 0.3,
        "modifier_keys": {"shift": "shiftKey", "ctrl": "ctrlKey", "meta": "metaKey", "alt": "altKey"},
        "new_tree_behavior": true, "ortho": true, "pan_speed": 1, "python_enumeration": true,
        "reset_camera": "KEEP", "rotate_speed": 1, "roughness": 0.65, "theme": "browser",
        "ticks": 5, "tools": true, "transparent": false, "tree_width": 240, "up": "Z",
        "zoom_speed": 1,
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// Whether a setting may have this value.
///
/// # Errors
/// What was expected.
pub fn check(name: &str, value: &Value) -> Result<(), String> {
    let one_of = |words: &[&str]| {
        let known = value.as_str().is_some_and(|text| words.contains(&text));
        known
            .then_some(())
            .ok_or_else(|| format!("one of {}", words.join(", ")))
    };
    let so = |holds: bool, expected: &str| holds.then_some(()).ok_or_else(|| expected.to_owned());
    match name {
        "collapse" => return one_of(COLLAPSE),
        "reset_camera" => return one_of(CAMERA),
        "theme" => return one_of(&["browser", "light", "dark"]),
        "control" => return one_of(&["trackball", "orbit"]),
        "up" => return one_of(&["Z", "Y", "L"]),
        _ => {}
    }
    match defaults().get(name) {
        None => Err("a setting the viewer knows, see the defaults".to_owned()),
        Some(Value::Bool(_)) => so(value.is_boolean(), "true or false"),
        Some(Value::Number(_)) => so(value.as_f64().is_some_and(|n| n >= 0.0), "a number from 0 on"),
        Some(Value::String(_)) => so(value.as_str().is_some_and(|text| !text.is_empty()), "a text"),
        Some(Value::Array(_)) => {
            let three = value
                .as_array()
                .is_some_and(|all| all.len() == 3 && all.iter().all(Value::is_boolean));
            so(three, "three times true or false, for xy, xz and yz")
        }
        Some(_) => {
            let keys = |all: &Map<String, Value>| all.values().all(Value::is_string);
            so(value.as_object().is_some_and(keys), "names of keys by modifier")
        }
    }
}

/// The user's own file speaks the words of the original's command line, some of them inverted. What is no setting, or
/// may not be so, is named.
#[must_use]
pub fn of_user(file: &Map<String, Value>) -> (Settings, Vec<String>) {
    let mut settings = Settings::new();
    let mut bad = Vec::new();
    let mut grid = [Value::Bool(false), Value::Bool(false), Value::Bool(false)];
    let mut gridded = false;
    for (name, value) in file {
        let inverted = || value.as_bool().map(|on| Value::Bool(!on)).unwrap_or(Value::Null);
        let (name, value) = match name.as_str() {
            "no_glass" => ("glass", inverted()),
            "no_tools" => ("tools", inverted()),
            "perspective" => ("ortho", inverted()),
            "grid_xy" | "grid_xz" | "grid_yz" => {
                let at = ["grid_xy", "grid_xz", "grid_yz"]
                    .iter()
                    .position(|known| known == name);
                if let (Some(slot), true) = (at.and_then(|at| grid.get_mut(at)), value.is_boolean()) {
                    *slot = value.clone();
                    gridded = true;
                } else {
                    bad.push(format!("{name}: expected true or false"));
                }
                continue;
            }
            other => (other, value.clone()),
        };
        match check(name, &value) {
            Ok(()) => {
                settings.insert(name.to_owned(), value);
            }
            Err(expected) => bad.push(format!("{name}: expected {expected}")),
        }
    }
    if gridded {
        settings.insert("grid".to_owned(), Value::from(grid.to_vec()));
    }
    (settings, bad)
}

/// The defaults with these over them, the later winning.
#[must_use]
pub fn over_defaults(layers: [&Settings; 2]) -> Map<String, Value> {
    let mut all = defaults();
    for layer in layers {
        all.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Settings, check, defaults, of_user, over_defaults};

    #[test]
    fn every_default_is_what_its_check_expects() {
        for (name, value) in defaults() {
            assert_eq!(check(&name, &value), Ok(()), "{name}");
            assert!(check(&name, &Value::Null).is_err(), "{name}");
        }
        assert!(check("collapse", &json!("2")).is_err());
        assert!(check("grid", &json!([true])).is_err());
        assert!(check("nonsense", &json!(1)).is_err());
    }

    #[test]
    fn the_users_file_speaks_like_the_command_line() {
        let file = json!({"no_glass": true, "perspective": true, "grid_xz": true, "ticks": "x", "port": 1});
        let (settings, bad) = of_user(file.as_object().unwrap());
        let own = Settings::from([("ticks".to_owned(), json!(9))]);
        let all = over_defaults([&settings, &own]);
        assert_eq!(all["glass"], json!(false));
        assert_eq!(all["ortho"], json!(false));
        assert_eq!(all["grid"], json!([false, true, false]));
        assert_eq!(all["ticks"], json!(9));
        assert_eq!(bad.len(), 2, "{bad:?}");
    }
}
