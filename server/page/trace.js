// Decodes a trace: the layout stands in routing/trace/trace.py.

/** By token: its position, whether the model's own router chose, and each layer's experts. */
export function decodeTrace(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  if (String.fromCharCode(...bytes.subarray(0, 4)) !== "GLTN" || view.getUint16(4, true) !== 1) {
    throw new Error("this page cannot read the server's traces");
  }
  const hasWeights = view.getUint16(6, true) & 1;
  const first = view.getUint32(16, true);
  const numTokens = view.getUint32(20, true);
  const numLayers = view.getUint16(28, true);
  const topK = view.getUint16(30, true);
  const layers = Array.from({ length: numLayers }, (_, i) => view.getUint16(32 + 2 * i, true));
  const natives = 32 + 2 * numLayers;
  const ids = natives + numTokens;
  const weights = ids + 2 * numTokens * numLayers * topK;
  return Array.from({ length: numTokens }, (_, token) => ({
    position: first + token,
    native: view.getUint8(natives + token) === 1,
    layers,
    experts: layers.map((_, layer) => {
      const used = [];
      for (let slot = 0; slot < topK; slot += 1) {
        const place = (token * numLayers + layer) * topK + slot;
        const id = view.getInt16(ids + 2 * place, true);
        const weight = hasWeights ? view.getFloat32(weights + 4 * place, true) : null;
        if (id >= 0) used.push({ id, weight });
      }
      return used;
    }),
  }));
}
