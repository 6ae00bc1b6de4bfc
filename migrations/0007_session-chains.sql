ALTER TABLE "sessions" ADD COLUMN "fingerprint" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "chain_id" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "chain_began_at" timestamp (3) with time zone;--> statement-breakpoint
UPDATE "sessions" SET "chain_id" = "id", "chain_began_at" = "created_at";--> statement-breakpoint
ALTER TABLE "sessions" ALTER COLUMN "chain_id" SET NOT NULL;--> statement-breakpoint
ALTER TABLE "sessions" ALTER COLUMN "chain_began_at" SET NOT NULL;--> statement-breakpoint
CREATE INDEX "sessions_chain" ON "sessions" USING btree ("chain_id");
