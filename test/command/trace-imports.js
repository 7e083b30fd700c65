// Preloaded with `node --import`: names on stderr every module that is loaded after it.
import { Module, register } from "node:module";

const hooks = `
  export async function resolve(specifier, context, next) {
    const found = await next(specifier, context);
    console.error(found.url);
    return found;
  }`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const { _load: load } = Module;
Module._load = function (request, ...rest) {
  console.error(request);
  return load.call(this, request, ...rest);
};
