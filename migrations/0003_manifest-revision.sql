DROP INDEX "versions_stale_manifests";
--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "revision" integer DEFAULT 1 NOT NULL;
--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "manifest_revision" integer DEFAULT 1 NOT NULL;
--> statement-breakpoint
-- A removal was the only change that manifests said until now; damage is to be said from now on.
UPDATE "versions" SET
	"revision" = 1 + ("state" <> 'live')::int + ("damage" <> '')::int,
	"manifest_revision" = 1 + ("state" <> 'live' and "manifest_state" <> 'live')::int
WHERE "state" <> 'live' OR "damage" <> '';
--> statement-breakpoint
ALTER TABLE "versions" DROP COLUMN "manifest_state";
--> statement-breakpoint
CREATE INDEX "versions_stale_manifests" ON "versions" USING btree ("id") WHERE "versions"."state" <> 'purged' and "versions"."manifest_revision" <> "versions"."revision";