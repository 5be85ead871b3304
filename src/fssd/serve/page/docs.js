// /openapi.json as a page: a section for each route with its parameters, body and answers.

import { make } from "./view.js";

const EXAMPLE = (origin) => `curl --data-binary @street.jpg ${origin}/detect
curl -F image=@street.jpg "${origin}/detect?score=0.3&max=20"
curl -H "Accept: image/png" --data-binary @street.jpg ${origin}/detect > drawn.png
curl -F a=@one.jpg -F b=@two.jpg ${origin}/detect/batch`;

let schemas = {};
const resolve = (schema) => (schema?.$ref ? schemas[schema.$ref.split("/").pop()] : schema);

/** "list of object", "number", "file": the kind of a schema in a few words. */
function kindOf(schema) {
  const own = resolve(schema) ?? {};
  const choices = (own.anyOf ?? own.oneOf)?.filter((choice) => choice.type !== "null");
  if (choices) return choices.map((choice) => resolve(choice).title ?? kindOf(choice)).join(" or ");
  if (own.type === "array" && own.prefixItems) return `list of ${own.prefixItems.length} ${kindOf(own.prefixItems[0])}s`;
  if (own.type === "array") return `list of ${resolve(own.items)?.title ?? kindOf(own.items)}`;
  if (own.format === "binary") return "file";
  return own.type ?? "anything";
}

/** Rows [name, depth, schema] for the fields of an object and of the objects in it. */
function fields(schema, depth = 0, seen = []) {
  const own = resolve(schema);
  if (!own || seen.includes(own) || depth > 3) return [];
  const inner = [...seen, own];
  if (own.anyOf) return own.anyOf.flatMap((choice) => fields(choice, depth, seen));
  if (own.type === "array") return fields(own.items, depth, inner);
  return Object.entries(own.properties ?? {}).flatMap(([name, field]) => [[name, depth, field], ...fields(field, depth + 1, inner)]);
}

/** Text with `code` in it. */
function prose(text, tag = "p") {
  const element = make(tag);
  text.split("`").forEach((part, at) => element.append(at % 2 ? make("code", "", part) : part));
  return element;
}

function table(rows) {
  const body = make("tbody");
  for (const [name, about, depth] of rows) {
    const row = make("tr");
    const head = make("td", depth ? `deep-${depth}` : "");
    head.append(make("code", "", name));
    const cell = make("td");
    cell.append(...about);
    row.append(head, cell);
    body.append(row);
  }
  const whole = make("table");
  whole.append(body);
  const scroll = make("div", "scroll");
  scroll.append(whole);
  return scroll;
}

const described = (schema, text = schema.description ?? "") => [make("span", "kind", kindOf(schema)), text ? `: ${text}` : ""];

function bounds({ minimum, maximum }) {
  if (minimum === undefined) return "";
  return maximum === undefined ? ` At least ${minimum}.` : ` From ${minimum} to ${maximum}.`;
}

function parameterRow({ name, schema, description }) {
  const own = schema.anyOf?.find((choice) => choice.type !== "null") ?? schema;
  return [`?${name}=`, described(own, `${description ?? ""}${bounds(own)}`), 0];
}

function bodyRow([type, { schema }]) {
  const own = Object.entries(resolve(schema).properties ?? {}).map(([name, field]) => `${kindOf(field)} ${name}`);
  return [type, own.length ? [own.join(", ")] : ["the image itself"], 0];
}

function answerRow([status, { description, content }]) {
  const types = status === "200" ? Object.keys(content ?? {}).map((type) => `\`${type}\``).join(" or ") : "";
  const sentences = types || description;
  return [status, sentences.split(/(?<=\.) (?=`)/).map((sentence) => prose(sentence)), 0];
}

function part(title, rows) {
  return rows.length ? [make("h3", "", title), table(rows)] : [];
}

function section(path, verb, route) {
  const details = make("details", "route");
  details.open = path === "/detect";
  const summary = make("summary");
  summary.append(make("span", `verb ${verb}`, verb.toUpperCase()), make("h2", "", path), make("span", "summary", route.summary ?? ""));
  const inside = make("div", "inside");
  const good = route.responses["200"]?.content?.["application/json"]?.schema;
  inside.append(
    ...(route.description ?? "").split("\n\n").map((text) => prose(text)),
    ...part("Parameters", (route.parameters ?? []).map(parameterRow)),
    ...part("Body", Object.entries(route.requestBody?.content ?? {}).map(bodyRow)),
    ...part("Answers", Object.entries(route.responses).map(answerRow)),
    ...part("Fields of the JSON", fields(good).map(([name, depth, field]) => [name, described(resolve(field) === field ? field : { ...field, type: "object" }), depth])),
  );
  details.append(summary, inside);
  return details;
}

async function start() {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  document.getElementById("example").textContent = EXAMPLE(base);
  const page = document.getElementById("docs");
  const openapi = await (await fetch("openapi.json")).json();
  schemas = openapi.components.schemas;
  for (const [path, verbs] of Object.entries(openapi.paths)) {
    for (const [verb, route] of Object.entries(verbs)) page.append(section(path, verb, route));
  }
  page.setAttribute("aria-busy", "false");
}

start();
