// Settings of one generation of CAD scripts in the other's page: which messages are told anew, how, and in what order.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../src/edge/viewer/names.js", import.meta.url), "utf8");

/** A page's window with the script in it and the page's own listener behind; returns what that one hears. */
function page(later) {
  const window = new EventTarget();
  vm.runInNewContext(`(\n${SOURCE})(${later});`, { window, MessageEvent });
  const heard = [];
  window.addEventListener("message", ({ data }) => heard.push(data));
  return (...messages) => {
    messages.forEach((data) => window.dispatchEvent(new MessageEvent("message", { data })));
    // objects of the script's own world have other prototypes
    return JSON.parse(JSON.stringify(heard.splice(0)));
  };
}

const EARLIER = {
  _splash: false,
  axes0: true,
  ambient_intensity: 1,
  clip_slider_0: 3,
  clip_planes: true,
  default_edgecolor: "#707070",
  modifier_keys: { shift: "shiftKey" },
  reset_camera: "reset",
  states: { "/Group/a_box": [1, 1] },
  studio_4k_env_maps: false,
  studio_ao_intensity: 0.5,
};
const LATER = {
  _splash: false,
  axes0: true,
  ambientIntensity: 1,
  clipSlider0: 3,
  clipPlaneHelpers: true,
  edgeColor: "#707070",
  keymap: { shift: "shiftKey" },
  resetCamera: "reset",
  states: { "/Group/a_box": [1, 1] },
  studio4kEnvMaps: false,
  studioAOIntensity: 0.5,
};

for (const [later, other, own] of [
  [true, EARLIER, LATER],
  [false, LATER, EARLIER],
]) {
  const which = later ? "later" : "earlier";

  test(`the ${which} page hears the other's settings by its own names`, () => {
    const tell = page(later);
    for (const type of ["data", "ui"]) {
      const message = { type, data: { shapes: { parts: [] } }, config: other, count: 1 };
      assert.deepEqual(tell(JSON.stringify(message)), [{ ...message, config: own }]);
    }
  });

  test(`the ${which} page is left alone with what is its own`, () => {
    const tell = page(later);
    const messages = [
      JSON.stringify({ type: "data", data: {}, config: own }),
      JSON.stringify({ type: "ui", config: own }),
      JSON.stringify({ type: "animation", data: [], config: { some_speed: 1, otherSpeed: 2 } }),
      JSON.stringify({ type: "clear" }),
      "null",
    ];
    assert.deepEqual(tell(...messages), messages);
    assert.deepEqual(tell({ type: "ui", config: other }), [{ type: "ui", config: other }]);
  });

  test(`the ${which} page hears all in one order, and its own name wins`, () => {
    const tell = page(later);
    const [name, renamed] = later ? ["black_edges", "blackEdges"] : ["blackEdges", "black_edges"];
    const both = JSON.stringify({ type: "ui", config: { [name]: 1, [renamed]: 2, ticks: 3 } });
    const heard = tell(JSON.stringify({ type: "clear" }), JSON.stringify({ type: "ui", config: { [name]: 1 } }), both);
    assert.deepEqual(
      heard.map((data) => (typeof data === "string" ? JSON.parse(data) : data)),
      [
        { type: "clear" },
        { type: "ui", config: { [renamed]: 1 } },
        { type: "ui", config: { [name]: 1, [renamed]: 2, ticks: 3 } },
      ],
    );
  });

  test(`a large model of the ${which} page's own is not read twice`, () => {
    const tell = page(later);
    const config = later ? { ...other, _core_version: "1.1.2" } : other;
    // it has names to be told anew: only that nobody looked explains that it was not
    const large = JSON.stringify({ type: "data", data: "A".repeat(70_000), config });
    assert.deepEqual(tell(large), [large]);
    const foreign = later ? other : { ...other, _core_version: "1.1.2" };
    const expected = later ? own : { ...own, _core_version: "1.1.2" };
    const [{ config: heard }] = tell(JSON.stringify({ type: "data", data: "A".repeat(70_000), config: foreign }));
    assert.deepEqual(heard, expected);
  });
}
