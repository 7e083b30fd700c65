import { describe, expect, test } from "vitest";
import { servingRole } from "../support/global-setup.ts";
import { instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar, attach, problemsOf } from "./sidecar.ts";

const hiding = {
  "of plugin_state": "alter table plugin_state enable row level security",
  "of plugins": "alter table plugins enable row level security",
  "that shows some rows": `alter table plugin_state enable row level security;
    create policy most on plugin_state using (state_key <> 'hidden')`,
};

describe.each(Object.entries(hiding))("row-level security %s", (_what, sql) => {
  test("is the reason why a sidecar doesn't start, and doctor names it", async () => {
    await using database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await database.store().set(pluginId, { scopeKind: "instance", stateKey: "hidden", value: 1 });
    await attach(database);
    await database.query(sql);

    await using sidecar = await AttachedSidecar.start(database);

    expect(sidecar.line.event).toBe("failed");
    expect(sidecar.log).toMatch(/row.level security/i);
    const problems = await problemsOf(database, "--role", servingRole);
    expect(JSON.stringify(problems)).toMatch(/row.level security/i);
  });

  test("that comes later makes a sidecar NOT_SERVING, and it serves when that is gone", async () => {
    await using database = await HostDatabase.create();
    await database.addPlugin("demo");
    await attach(database);
    await using sidecar = await AttachedSidecar.start(database);
    await sidecar.client.call("set", { scope: instance, key: "hidden", valueJson: "1" });

    await database.query(sql);

    await expect.poll(() => sidecar.health()).toBe("NOT_SERVING");
    expect(sidecar.log).toMatch(/row.level security/i);
    await database.query(
      "alter table plugin_state disable row level security; alter table plugins disable row level security",
    );
    await expect.poll(() => sidecar.health()).toBe("SERVING");
    const { entry } = await sidecar.client.call("get", { scope: instance, key: "hidden" });
    expect(entry).toMatchObject({ valueJson: "1" });
  });
});
