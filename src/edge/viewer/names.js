// Put into both pages before their own scripts: settings said by the other generation's scripts get the names this
// page knows, since a page passes over names it does not know, the camera's reset among them. What a page is sent is
// not touched, only what its own listener hears.
(later) => {
  const special = [
    ["clip_planes", "clipPlaneHelpers"],
    ["default_edgecolor", "edgeColor"],
    ["modifier_keys", "keymap"],
    ["studio_ao_intensity", "studioAOIntensity"],
  ];
  const known = new Map(later ? special : special.map(([earlier, name]) => [name, earlier]));
  const spelt = later
    ? (name) => name.replace(/(?<=.)_([a-z0-9])/g, (_, letter) => letter.toUpperCase())
    : (name) =>
        /[A-Z]/.test(name)
          ? name.replace(/(?<=[a-z])([A-Z]|\d)/g, (_, letter) => `_${letter.toLowerCase()}`)
          : name;
  window.addEventListener("message", (event) => {
    const text = event.data;
    if (typeof text !== "string") return;
    // only the later generation's models say which core they are for; a model of this page's own is not read twice
    if (text.length > 65536 && text.includes('"_core_version"') === later) return;
    const message = JSON.parse(text);
    const config = message?.config;
    if (!["data", "ui"].includes(message?.type) || config === null || typeof config !== "object") return;
    const renamed = {};
    for (const [name, value] of Object.entries(config)) {
      // an underscore in front marks what is no setting
      const own = name.startsWith("_") ? name : (known.get(name) ?? spelt(name));
      if (own === name || !(own in config)) renamed[own] = value;
    }
    if (Object.keys(renamed).every((name) => name in config)) return;
    // at once, so that no message overtakes another
    event.stopImmediatePropagation();
    window.dispatchEvent(new MessageEvent("message", { data: { ...message, config: renamed } }));
  });
}
