//! Changes of a configuration that the API makes: plugins added, replaced, removed; and which of them its file does not say. Pure.
#![forbid(unsafe_code)]

use crate::config::{Config, Link, OnError, Plugin, PluginIndex};

/// The configuration with one more plugin, as the last link of these routes.
///
/// # Errors
/// The name of a route that does not exist.
pub fn add(config: &Config, plugin: Plugin, routes: &[String]) -> Result<Config, String> {
    let link = Link { plugin: PluginIndex(config.plugins.len() as u32), on_error: plugin.on_error, post_always: false };
    let mut changed = config.routes.to_vec();
    for name in routes {
        let mut found = false;
        for route in changed.iter_mut().filter(|route| route.name == *name) {
            route.links.push(link);
            found = true;
        }
        if !found {
            return Err(name.clone());
        }
    }
    let plugins = config.plugins.iter().cloned().chain([plugin]).collect();
    Ok(Config { plugins, routes: changed.into(), ..config.clone() })
}

/// The configuration with `plugin` in the place of the one at `index`.
pub fn replace(config: &Config, index: PluginIndex, plugin: Plugin) -> Config {
    let mut plugins = config.plugins.to_vec();
    plugins[index.0 as usize] = plugin;
    Config { plugins: plugins.into(), ..config.clone() }
}

/// The configuration without the plugin at `index` and its links.
pub fn remove(config: &Config, index: PluginIndex) -> Config {
    let mut plugins = config.plugins.to_vec();
    plugins.remove(index.0 as usize);
    let without = |links: &[Link]| -> Vec<Link> {
        let moved = |at: PluginIndex| if at > index { PluginIndex(at.0 - 1) } else { at };
        links.iter().filter(|link| link.plugin != index).map(|link| Link { plugin: moved(link.plugin), ..*link }).collect()
    };
    let mut routes = config.routes.to_vec();
    for route in &mut routes {
        route.links = without(&route.links);
    }
    let mut listeners = config.listeners.to_vec();
    for listener in &mut listeners {
        listener.links = without(&listener.links);
    }
    Config { plugins: plugins.into(), routes: routes.into(), listeners: listeners.into(), ..config.clone() }
}

/// What was changed and is not in the file, for people: `file` is what that says, `now` what is in force.
pub fn unsaved(now: &Config, file: &Config) -> Vec<String> {
    let find = |config: &Config, name: &str| (0..).map(PluginIndex).zip(config.plugins.iter().cloned()).find(|(_, plugin)| plugin.name == name);
    let changed = (0..).map(PluginIndex).zip(now.plugins.iter()).filter_map(|(index, plugin)| {
        let what = match find(file, &plugin.name) {
            None => "loaded",
            Some((_, other)) if (&other.path, &other.config) != (&plugin.path, &plugin.config) => "swapped",
            Some((other, _)) if attached(file, other) != attached(now, index) => "attached to other routes",
            Some(_) => return None,
        };
        Some(format!("the plugin `{}` was {what}", plugin.name))
    });
    let gone = file.plugins.iter().filter(|plugin| find(now, &plugin.name).is_none()).map(|plugin| format!("the plugin `{}` was unloaded", plugin.name));
    changed.chain(gone).collect()
}

/// The routes and listeners that the plugin at `index` is attached to, for people.
pub fn attached(config: &Config, index: PluginIndex) -> Vec<String> {
    let linked = |links: &[Link]| links.iter().any(|link| link.plugin == index);
    let routes = config.routes.iter().filter(|route| linked(&route.links)).map(|route| format!("route {}", route.name));
    let listeners = config.listeners.iter().filter(|listener| linked(&listener.links)).map(|listener| format!("listener {}", listener.name));
    routes.chain(listeners).collect()
}

/// What the API writes for `on_error`.
pub fn on_error(text: &str) -> Option<OnError> {
    match text {
        "closed" => Some(OnError::Closed),
        "open" => Some(OnError::Open),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        listener = [{ address = "127.0.0.1:0", plugins = ["b"] }]
        plugin = [{ name = "a", path = "a.so" }, { name = "b", path = "b.so" }, { name = "c", path = "c.so" }]
        [[route]]
        name = "r"
        plugins = ["a", "b", "c"]
    "#;

    fn chain(config: &Config) -> String {
        config.routes[0].links.iter().map(|link| config.plugin(link.plugin).name.as_str()).collect()
    }

    #[test]
    fn plugins_come_and_go_and_links_follow() {
        let config = Config::parse("r.toml", TEXT, &|_| None).expect("sound");
        let b = PluginIndex(1);
        assert_eq!(attached(&config, b), ["route r", "listener 127.0.0.1:0"]);
        let without = remove(&config, b);
        assert_eq!((chain(&without), without.listeners[0].links.len()), ("ac".into(), 0));
        let d = Plugin { name: "d".into(), ..config.plugins[0].clone() };
        assert_eq!(chain(&add(&without, d.clone(), &["r".into()]).expect("route r")), "acd");
        assert_eq!(add(&without, d.clone(), &["s".into()]), Err("s".into()));
        assert_eq!(chain(&replace(&config, b, d)), "adc");
    }
}
